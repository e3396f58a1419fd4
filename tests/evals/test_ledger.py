from realisvsr_jax.evals.ledger import Ledger


def test_what_was_scored_is_not_scored_again(tmp_path):
    path, made = tmp_path / "scores.jsonl", []

    def make(value):
        made.append(value)
        return {"psnr": value}

    ledger = Ledger(path)
    assert ledger.get(("ours", "city", 0), lambda: make(1.5)) == {"psnr": 1.5}
    assert ledger.get(("ours", "city", 1), lambda: make(2.5)) == {"psnr": 2.5}
    assert ledger.get(("ours", "city", 0), lambda: make(9.0)) == {"psnr": 1.5}
    with path.open("a") as file:
        file.write('{"of": ["ours", "städte')
    again = Ledger(path)
    assert again.get(("ours", "city", 1), lambda: make(9.0)) == {"psnr": 2.5}
    assert again.get(("ours", "bikes", 0), lambda: make(3.5)) == {"psnr": 3.5}
    again.put(("ours", "phone", 0), [4.5])
    assert again.get(("ours", "phone", 0), lambda: make(9.0)) == [4.5]
    assert made == [1.5, 2.5, 3.5]
    assert len(Ledger(path).rows) == 4
