-- What became of RQ jobs where they ran.
-- ARGV: 'canceled', 'stopped' or 'requeued', how many.
-- Returns {'ok'}, or {'unknown'} when nobody knows the job: a count makes none.

local field, count = unpack(ARGV, 3)

if redis.call('EXISTS', JOB) == 0 then
  return {'unknown'}
end
-- Who sweeps counts all that was canceled, by whomever, when it has done so.
if field ~= 'canceled' or redis.call('HEXISTS', JOB, 'rq_due_us') == 0 then
  redis.call('HINCRBY', JOB, 'rq_' .. field, count)
end
touch()
return {'ok'}
