# One worker of the Procfile is one rank of the pipeline: for Heroku and its like, and for honcho on one machine.
set -eu

name=${DYNO:-${HONCHO_PROCESS_NAME:-worker.1}} # worker.1 is rank 0
PATH=.venv/bin:$PATH                           # for honcho: nobody has to activate anything
export COORD_LABEL="$name"
export COORD_REDIS_URL="${COORD_REDIS_URL:-${REDIS_URL:-}}"
export COORD_JOB_ID="${COORD_JOB_ID:-batch-1}"

# A platform stops workers one by one, at every deployment and once a day, and starts them again. So its SIGTERM means
# this worker, not the job: under `stop`, the first one would end the job everywhere and for good. What ends the job is
# `coord shutdown`; workers that are started after that are refused, with exit code 7.
export COORD_ON_FAILURE="${COORD_ON_FAILURE:-ignore}"

# `exec`, here and in the Procfile: the signal must reach coord, not a shell in between.
exec coord run -- python compose/pipeline/rank.py --rank $((${name##*.} - 1)) --ranks "${RANKS:-1}" \
  --out "${OUT:-/tmp/batch}" --hashes "${HASHES:-1024}"
