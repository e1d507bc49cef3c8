-- What the books may never show, with the wallet that does: invariants 1 to 4, 8, 9 and 15 of the ledger.
WITH live AS (
    SELECT wallet_id, (entry ->> 'sequence')::bigint AS grant_sequence, entry ->> 'source' AS source, (entry ->> 'remaining')::bigint AS remaining
    FROM credits.balances, json_array_elements(grants) entry
), held AS (
    SELECT wallet_id, (slice ->> 'grant')::bigint AS grant_sequence, (slice ->> 'amount')::bigint AS amount
    FROM credits.balances, json_array_elements(holds) entry, json_array_elements(entry -> 'slices') slice
)
SELECT 'entries do not sum to zero', wallet_id FROM credits.entries GROUP BY wallet_id, sequence HAVING sum(amount) <> 0
UNION ALL
SELECT 'sequence has a gap', wallet_id FROM credits.transactions GROUP BY wallet_id HAVING count(*) <> max(sequence)
UNION ALL
SELECT 'balance is not the last line', b.wallet_id FROM credits.balances b
LEFT JOIN credits.transactions t ON t.wallet_id = b.wallet_id AND t.sequence = b.sequence
WHERE coalesce(t.balance_after, 0) <> b.free + b.paid + b.held OR coalesce(t.hash, b.head) <> b.head
UNION ALL
SELECT 'balance is not the sum', b.wallet_id FROM credits.balances b
WHERE b.free + b.paid + b.held <> (SELECT coalesce(sum(amount), 0) FROM credits.transactions t WHERE t.wallet_id = b.wallet_id)
UNION ALL
SELECT 'a line does not continue the one before', wallet_id
FROM (SELECT *, lag(balance_after, 1, 0::bigint) OVER (PARTITION BY wallet_id ORDER BY sequence) AS before FROM credits.transactions) t
WHERE balance_after <> before + amount
UNION ALL
SELECT 'grants do not sum to the balance', b.wallet_id FROM credits.balances b
WHERE b.free <> (SELECT coalesce(sum(remaining), 0) FROM live g WHERE g.wallet_id = b.wallet_id AND source <> 'purchase')
   OR b.paid <> (SELECT coalesce(sum(remaining), 0) FROM live g WHERE g.wallet_id = b.wallet_id AND source = 'purchase')
UNION ALL
SELECT 'holds do not sum to what is held', b.wallet_id FROM credits.balances b
WHERE b.held <> (SELECT coalesce(sum(amount), 0) FROM held h WHERE h.wallet_id = b.wallet_id)
UNION ALL
SELECT 'a grant is not the sum of its legs', g.wallet_id FROM credits.grants g
WHERE coalesce((SELECT remaining FROM live l WHERE (l.wallet_id, l.grant_sequence) = (g.wallet_id, g.grant_sequence)), 0)
    + coalesce((SELECT sum(amount) FROM held h WHERE (h.wallet_id, h.grant_sequence) = (g.wallet_id, g.grant_sequence)), 0)
   <> (SELECT sum(amount) FROM credits.entries e WHERE e.wallet_id = g.wallet_id AND e.grant_sequence = g.grant_sequence)
UNION ALL
SELECT 'usage is not what was spent', b.wallet_id FROM credits.balances b
WHERE (SELECT coalesce(sum(spent - refunded), 0) FROM credits.usage_stats u WHERE u.wallet_id = b.wallet_id) <> b.total_spent
   OR (SELECT coalesce(-sum(amount), 0) FROM credits.transactions t WHERE t.wallet_id = b.wallet_id AND type IN ('usage', 'refund')) <> b.total_spent
