-- What the books were at a time, in one hash: a Merkle tree over the last line of every wallet. Somebody who can edit every
-- row can't edit the copy of a root that is kept elsewhere.

-- Each covers the one before, so that the newest one covers all.
CREATE TABLE credits.roots (
    id         bigint      NOT NULL CONSTRAINT roots_pkey PRIMARY KEY CONSTRAINT roots_id_positive CHECK (id > 0),
    previous   bytea       NOT NULL CONSTRAINT roots_previous_length CHECK (length(previous) = 32),
    tree       bytea       NOT NULL CONSTRAINT roots_tree_length CHECK (length(tree) = 32),
    hash       bytea       NOT NULL CONSTRAINT roots_hash_length CHECK (length(hash) = 32),
    wallets    bigint      NOT NULL CONSTRAINT roots_wallets_range CHECK (wallets >= 0),
    created_at timestamptz NOT NULL
);
CALL mana.protect('credits.roots', 'false');
GRANT SELECT, INSERT ON credits.roots TO mana_service;
CREATE TRIGGER roots_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON credits.roots
    FOR EACH STATEMENT EXECUTE FUNCTION credits.refuse_change();

-- The leaves of the newest root: where each wallet was when it last moved before a root was taken.
CREATE TABLE credits.anchors (
    wallet_id bigint NOT NULL CONSTRAINT anchors_pkey PRIMARY KEY,
    sequence  bigint NOT NULL CONSTRAINT anchors_sequence_positive CHECK (sequence > 0),
    head      bytea  NOT NULL CONSTRAINT anchors_head_length CHECK (length(head) = 32),
    root_id   bigint NOT NULL CONSTRAINT anchors_root_id_fkey REFERENCES credits.roots
              DEFERRABLE INITIALLY DEFERRED
) WITH (fillfactor = 80);
CALL mana.protect('credits.anchors', 'false');
GRANT SELECT, INSERT, UPDATE (sequence, head, root_id) ON credits.anchors TO mana_service;
