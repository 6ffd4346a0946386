# Waits for the notice that this EC2 spot instance will be taken away, then becomes a command. For instances that nobody
# else watches: ECS and the handlers for Kubernetes do this themselves.
#
#     sh compose/spot.sh systemctl stop coord-worker
set -eu

metadata=${METADATA:-http://169.254.169.254/latest}

while :; do
  token=$(curl --silent --fail --max-time 2 --request PUT --header 'X-aws-ec2-metadata-token-ttl-seconds: 60' \
    "$metadata/api/token") || token=
  # 404 until there is a notice
  if curl --silent --fail --max-time 2 --output /dev/null --header "X-aws-ec2-metadata-token: $token" \
    "$metadata/meta-data/spot/instance-action"; then
    exec "$@"
  fi
  sleep "${LOOK_S:-5}" # as often as AWS advises
done
