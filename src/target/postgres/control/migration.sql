DO $setup$
DECLARE
    applied text := (SELECT checksum FROM delta.migration WHERE version = {version});
BEGIN
    IF applied IS NULL THEN
        EXECUTE $migration$
{sql}
$migration$;
        INSERT INTO delta.migration (version, name, checksum) VALUES ({version}, {name}, {checksum});
    ELSIF applied <> {checksum} THEN
        RAISE EXCEPTION 'migration {version} of the control schema is not the one of this program'
            USING ERRCODE = 'DP002', HINT = 'use the version of the program that made it';
    END IF;
END
$setup$;
