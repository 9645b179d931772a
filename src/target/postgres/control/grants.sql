-- No function of this schema is for PUBLIC. Each has the fixed search path that it was created with, and its owner's rights. Default
-- privileges are removed.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA delta FROM PUBLIC, delta_loader, delta_rollback;
REVOKE ALL ON ALL TABLES IN SCHEMA delta FROM PUBLIC;
REVOKE ALL ON delta.migration, delta.run, delta.event, delta.loaded_table, delta.reference, delta.trusted_owner, delta.file, delta.block, delta.segment,
    delta.appended, delta.target, delta.mode, delta.policy FROM delta_loader, delta_rollback;
REVOKE ALL ON SCHEMA delta, {staging} FROM PUBLIC;
REVOKE CREATE ON SCHEMA delta, {staging} FROM delta_loader, delta_rollback;
GRANT USAGE ON SCHEMA delta TO delta_loader, delta_rollback;
GRANT USAGE ON SCHEMA {staging} TO delta_loader;
GRANT SELECT ON delta.migration, delta.run, delta.event, delta.loaded_table, delta.reference, delta.trusted_owner, delta.file, delta.block, delta.segment,
    delta.appended, delta.target, delta.mode, delta.policy TO delta_loader, delta_rollback;
GRANT INSERT ON delta.target TO delta_loader;
GRANT EXECUTE ON FUNCTION delta.append_event, delta.record_run, delta.reserve, delta.record_block, delta.make_staging, delta.analyze_staging,
    delta.hold_table, delta.hold_references, delta.lock_references, delta.analyze, delta.summarize, delta.forget, delta.append_staged,
    delta.begin_mappings, delta.import_mappings, delta.record_segment, delta.hold_mode, delta.hold_policy, delta.end_mode
    TO delta_loader;
GRANT EXECUTE ON FUNCTION delta.append_event, delta.holdings, delta.conflicts, delta.unindexed, delta.roll_back, delta.try_roll_back, delta.switch_mode, delta.hold_mode, delta.end_mode,
    delta.set_policy TO delta_rollback;
