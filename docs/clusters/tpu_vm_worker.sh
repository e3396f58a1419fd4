#!/bin/bash
# On every machine of a Cloud TPU slice: trains, and starts again until the run is finished.
#
#   docs/clusters/tpu_vm_worker.sh --config configs/wan13b.py --workdir /mnt/shared/runs/wan13b
#
# tpu_vm.sh starts it on all of them. The metadata server says which machine this is, of how many.

set -u
PYTHON=${PYTHON:-.venv/bin/python}
RESTARTS=${RESTARTS:-50} # a fault that comes back has to end at some time

metadata() {
    curl --silent --show-error --fail --header 'Metadata-Flavor: Google' \
        "http://${GCE_METADATA_IP:-metadata.google.internal}/computeMetadata/v1/instance/attributes/$1"
}

number=$(metadata agent-worker-number) || exit 1
listed=$(metadata worker-network-endpoints) || exit 1
IFS=, read -ra workers <<<"$listed" # each is an address, or name:number:address
address=${workers[0]##*:}

child=
stopped=
trap 'stopped=1; [[ $child ]] && kill -TERM "$child"' TERM INT
for ((restarts = 0; restarts <= RESTARTS; restarts++)); do
    "$PYTHON" -m realisvsr_jax.train --coordinator "$address:8482" \
        --num_processes "${#workers[@]}" --process_id "$number" "$@" &
    child=$!
    wait "$child"
    status=$?
    while kill -0 "$child" 2>/dev/null; do # a signal ended the wait, not the training
        wait "$child"
        status=$?
    done
    child=
    # 75: another process was lost. 137: this one was killed.
    [[ -z $stopped && ($status == 75 || $status == 137) ]] || break
    echo "status $status: starting again, after $restarts restarts"
done
exit "$status"
