# Becomes redis-server, with the users of users.acl, and their passwords from COORDINATOR_PASSWORD, AGENT_PASSWORD and
# OBSERVER_PASSWORD. Redis reads no environment; the file that it gets holds the passwords' SHA-256.
#
#     sh start.sh OPTIONS-OF-REDIS-SERVER...
set -eu
umask 077

made=${MADE:-/tmp/users.acl}
cp "$(dirname "$0")/users.acl" "$made"
for user in coordinator agent observer; do
  name=$(echo "$user" | tr a-z A-Z)_PASSWORD
  eval "password=\${$name:-}"
  case $password in
    "" | REPLACE*)
      echo "start.sh: $name is not set: see README.md, \"Who may do what\"" >&2
      exit 78 # EX_CONFIG
      ;;
  esac
  hash=$(printf %s "$password" | sha256sum | cut -d " " -f 1)
  sed -i "s/>REPLACE-$user /#$hash /" "$made"
  unset "$name"
done

exec ${SERVER:-redis-server} --aclfile "$made" "$@"
