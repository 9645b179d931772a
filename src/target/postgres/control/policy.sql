-- A database that was live before it was set up requires conversion mode. `pipeline policy set` changes the policy.
INSERT INTO delta.policy (conversion_mode, approvals, max_key_block)
    SELECT {conversion_mode}, 0, 100000000 WHERE NOT EXISTS (SELECT FROM delta.policy);
