-- An agent is alive. It learns whether its job has a request, so that even a silently dead subscription costs one beat.
-- ARGV: agent id, lease_us.
-- Returns {'none'} or 'exists' with the request.

local agent_id, lease_us = unpack(ARGV, 3)

redis.call('ZADD', LEASES, 'XX', int(NOW_US + lease_us), agent_id)
touch()
if fenced() then
  return request('exists')
end
return {'none'}
