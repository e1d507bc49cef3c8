-- no-transaction
-- What is past its time is found by it. A range of pages is one entry, so that an answer that is remembered adds none.
CREATE INDEX CONCURRENTLY IF NOT EXISTS remembered_answers_created_at_idx ON credits.remembered_answers USING brin (created_at);
