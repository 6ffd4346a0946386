# Prints new passwords for the users of users.acl, as lines of an environment file.
#
#     (umask 077; sh redis/passwords.sh > .env)
set -eu

for user in COORDINATOR AGENT OBSERVER; do
  printf '%s_PASSWORD=%s\n' "$user" "$(od -An -N 24 -t x1 /dev/urandom | tr -d ' \n')"
done
