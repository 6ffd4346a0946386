-- Nothing of the job is queued or started on RQ any more, but for what is named.
-- ARGV: who, canceled (in all, by whomever), stopped, requeued (by the sweeper), number unproved, unproved JSON list,
--       detail JSON, seal.
-- Returns {'swept'}, or {'none'} when another has taken it over, or this was said before.

wholly()
local who, canceled, stopped, requeued, unproved_count, unproved, detail, seal = unpack(ARGV, 3)

if redis.call('HGET', JOB, 'rq_by') ~= who then
  return {'none'}
end
redis.call('HSET', JOB, 'rq_canceled', canceled)
redis.call('HINCRBY', JOB, 'rq_stopped', stopped)
redis.call('HINCRBY', JOB, 'rq_requeued', requeued)
redis.call('HSET', JOB, 'rq_unproved_count', unproved_count, 'rq_unproved', unproved, 'rq_who', who, 'rq_seal', seal)
redis.call('HDEL', JOB, 'rq_due_us', 'rq_by', 'rq_lost')
event('rq.swept', detail)
settle()
touch()
return {'swept'}
