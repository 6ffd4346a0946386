-- Somebody wants to sweep the job's RQ jobs: one at a time. Who has it renews it by claiming again.
-- ARGV: who, microseconds until it is overdue, '1' to sweep again what was given up or left without proof.
-- Returns {'claimed'}, {'taken'} by another, or {'none'} when there is nothing to sweep.

wholly()
local who, lease_us, again = unpack(ARGV, 3)
local job = redis.call('HMGET', JOB, 'rq_due_us', 'rq_by', 'rq', 'rq_lost', 'rq_unproved_count')
local due_us, by = job[1], job[2]

if not fenced() or not job[3] then
  return {'none'}
end
if due_us and by and by ~= who and NOW_US < tonumber(due_us) then
  return {'taken'}
end
if not due_us and not (again == '1' and (job[4] or tonumber(job[5] or 0) > 0)) then
  return {'none'}
end
if not due_us then
  redis.call('HDEL', JOB, 'verdict', 'verdict_us')
end
redis.call('HSET', JOB, 'rq_due_us', int(NOW_US + lease_us), 'rq_by', who)
redis.call('HDEL', JOB, 'rq_lost')
if by ~= who then
  event('rq.sweeping', cjson.encode({by = who}))
end
touch()
return {'claimed'}
