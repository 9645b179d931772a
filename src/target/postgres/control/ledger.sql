DO $setup$
DECLARE
    newer integer := (SELECT max(version) FROM delta.migration WHERE version > {version});
BEGIN
    IF newer IS NOT NULL THEN
        RAISE EXCEPTION 'the control schema has version %, which a newer version of this program made; this one knows {version}', newer
            USING ERRCODE = 'DP002', HINT = 'use that version, or a newer one';
    END IF;
END
$setup$;
