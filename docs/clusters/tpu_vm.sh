#!/bin/bash
# A Cloud TPU slice, from a machine with gcloud: create, setup, train, log, stop, delete.
#
#   export TPU=realisvsr ZONE=us-west4-a NFS=10.0.0.2:/share
#   docs/clusters/tpu_vm.sh create
#   docs/clusters/tpu_vm.sh setup https://HOST/OWNER/REPOSITORY.git
#   docs/clusters/tpu_vm.sh train --config configs/wan13b.py --workdir /mnt/shared/runs/wan13b
#   docs/clusters/tpu_vm.sh log
#
# v5litepod-16 is v5e 4x4: 16 chips on 4 machines. NFS is a share in the network of the slice, such
# as Filestore's; it becomes /mnt/shared on all machines.

set -eu
: "${TPU:?the name of the slice}" "${ZONE:?its zone}"
ACCELERATOR=${ACCELERATOR:-v5litepod-16}
RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite}

tpu() { gcloud compute tpus tpu-vm "$1" "$TPU" --zone="$ZONE" "${@:2}"; }
everywhere() { tpu ssh --worker=all --command="$1"; }

action=${1:?create, setup, train, log, stop or delete}
shift
case $action in
create)
    tpu create --accelerator-type="$ACCELERATOR" --version="$RUNTIME"
    ;;
setup) # the image's own Python may be older than 3.11
    everywhere "set -e
        sudo apt-get install -y -q nfs-common
        sudo mkdir -p /mnt/shared
        mountpoint -q /mnt/shared || sudo mount -t nfs ${NFS:?HOST:/SHARE} /mnt/shared
        sudo chmod 1777 /mnt/shared
        python3 -m pip install --user --quiet uv
        [ -d realisvsr ] || git clone ${1:?the address of the repository} realisvsr
        cd realisvsr && git pull --ff-only
        make setup ACCEL=tpu PYTHON=\$(~/.local/bin/uv python find --system 3.12 2>/dev/null \
            || { ~/.local/bin/uv python install 3.12 >&2; ~/.local/bin/uv python find 3.12; })"
    ;;
train) # goes on when this connection ends; `log` shows what it writes
    everywhere "cd realisvsr
        JAX_COMPILATION_CACHE_DIR=/mnt/shared/programs nohup setsid \
            docs/clusters/tpu_vm_worker.sh $(printf '%q ' "$@") >train.log 2>&1 </dev/null &
        echo \$! >train.pid"
    ;;
log)
    tpu ssh --worker=0 --command='tail -n 40 -f realisvsr/train.log'
    ;;
stop) # all save at one step; `train` with the same arguments goes on
    everywhere "kill -TERM \$(cat realisvsr/train.pid)"
    ;;
delete)
    tpu delete
    ;;
*)
    echo "$action is none of create, setup, train, log, stop, delete" >&2
    exit 2
    ;;
esac
