# Becomes the command that a process type of the Procfile names: on Heroku and its like, and under honcho.
#
#     sh compose/platform.sh COMMAND...
#
# The platform's add-on says in REDIS_URL where Redis is, and says something else there after a failover: so it is read at
# each start, and not copied into another setting. COORD_REDIS_URL and RQ_REDIS_URL go before it.
set -eu

PATH=.venv/bin:$PATH # for honcho: nobody has to activate anything
url=${COORD_REDIS_URL:-${REDIS_URL:-}}
case ${DYNO:+$url} in
  # The certificate of Heroku's own Redis is signed by nobody whom a client knows. Encrypted all the same.
  rediss://*\?*) ;;
  rediss://*) url="$url?ssl_cert_reqs=none" ;;
esac
if [ -n "$url" ]; then
  export COORD_REDIS_URL="$url" RQ_REDIS_URL="${RQ_REDIS_URL:-$url}"
fi

# `exec`, here and in the Procfile: the signal must reach the command, not a shell in between.
exec "$@"
