# Process type `rank` of the Procfile: each is one rank of the pipeline, under `coord run`.
set -eu

name=${DYNO:-${HONCHO_PROCESS_NAME:-rank.1}} # rank.1 is rank 0
export COORD_LABEL="$name"
export COORD_JOB_ID="${COORD_JOB_ID:-batch-1}"

# A platform stops processes one by one, at every deployment and once a day, and starts them again. So its SIGTERM means
# this rank, not the job: under `stop`, the first one would end the job everywhere and for good. What ends the job is
# `coord shutdown`; ranks that are started after that are refused, with exit code 7.
export COORD_ON_FAILURE="${COORD_ON_FAILURE:-ignore}"

exec coord run -- python compose/pipeline/rank.py --rank $((${name##*.} - 1)) --ranks "${RANKS:-1}" \
  --out "${OUT:-/tmp/batch}" --hashes "${HASHES:-1024}"
