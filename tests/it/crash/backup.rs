//! Backups and restores of the key map that are killed.

use super::{Done, Trial, is_refused};
use crate::invariants::After;
use crate::scene::{FILE, On, Scene, TABLES};

each_target! {
    a_backup_that_is_killed_is_finished_by_the_next => backed_up;
    a_restore_that_is_killed_puts_back_nothing_and_is_done_again => restored;
}

/// A scene whose key map is backed up.
fn scene(on: On) -> Scene {
    let scene = Scene::new(on);
    let pipeline = scene.place.text(FILE).replace("conversion_mode: off", "conversion_mode: off, backup: ./backups");
    scene.place.write(FILE, pipeline);
    scene
}

fn backed_up(on: On) {
    let done = Done::default();
    // The first segments are those of the earlier run, before anything is written; the next are the run's own.
    for (at, loaded) in [("mid-backup=return", false), ("mid-backup=3*off->return", true)] {
        let trial = Trial::new(scene(on), &done);
        trial.kill(at);
        let after = After::of(&trial.before, &trial.delta, &trial.scene, &[], None);
        assert_eq!(after.loaded.is_some(), loaded, "{at}");
        if loaded {
            trial.resume(at);
        } else {
            is_refused(&trial.scene, &["resume", FILE], 64, &["interrupted or failed"]);
            trial.run_anew(at);
        }
        trial.scene.pipeline(&["keymap", "backup", FILE]).passes();
        trial.scene.pipeline(&["keymap", "verify", FILE]).passes();
        // Two runs, three tables.
        let manifests = trial.scene.place.files().into_keys();
        let manifests = manifests.filter(|name| name.starts_with("backups/") && name.ends_with(".parquet"));
        assert_eq!(manifests.count(), 6, "{at}");
    }
    done.tell(on);
}

fn restored(on: On) {
    let done = Done::default();
    let trial = Trial::new(scene(on), &done);
    trial.scene.pipeline(&["run", FILE]).passes();
    let map = |name: &str| trial.scene.control(on.choose("mapping_", "key_map_")) + name;
    let maps: Vec<_> = TABLES.iter().map(|table| map(table.name)).collect();
    // What a row was when it was inserted is no part of the mapping, and not in the store.
    if on == On::Sqlite {
        for map in &maps {
            trial.scene.execute(&format!("UPDATE {map} SET _content = NULL"));
        }
    }
    let mapped = || -> Vec<_> {
        maps.iter().map(|map| trial.scene.rows(&format!("SELECT * FROM {map} ORDER BY legacy_key"))).collect()
    };
    let before = mapped();
    for map in &maps {
        trial.scene.execute(&format!("DELETE FROM {map}"));
    }
    let production = trial.scene.production();
    for at in ["mid-restore=return", "mid-restore=4*off->return"] {
        assert!(trial.is_killed(&["keymap", "restore", FILE], at), "it never comes to {at}");
        assert!(mapped().iter().all(Vec::is_empty), "killed at {at}, it left mappings");
    }
    trial.scene.pipeline(&["keymap", "restore", FILE]).passes();
    assert_eq!(mapped(), before);
    assert_eq!(trial.scene.production(), production);
    trial.scene.pipeline(&["keymap", "verify", FILE]).passes();
    done.tell(on);
}
