//! The key map's history in segments: what a load appended, and what is put back.

use delta_pipeline::internals::engine::RowNumber;
use delta_pipeline::internals::target::{Destination, LoadMode, Segment};
use futures::{StreamExt, stream};

use super::live::{Live, On};
use super::rows::{Part, lines, load, mapped, numbers, taken, texts};

each_target!(
    memory async
    segment_is_what_one_load_appended_and_recorded,
    segments_are_read_in_the_order_of_bytes_and_by_themselves,
    a_target_has_one_id_until_it_adopts_another,
);

each_target!(async mappings_are_restored_under_their_run);

const SQL: &str = "CREATE TABLE item (id {serial}, name VARCHAR(20))";

fn part(item: &Destination, first: i64) -> Part<'_> {
    (item, vec![("id", numbers([first, first + 1])), ("name", texts(["a", "b"]))])
}

fn segment(item: &Destination, run: &str, rows: u64) -> Segment {
    Segment { run: run.into(), table: item.table.key_map.clone(), rows }
}

async fn segment_is_what_one_load_appended_and_recorded(on: On) {
    let live = Live::new(on, SQL);
    let item = live.ready("item").await;
    let target = live.writer().await;
    assert_eq!(target.segments().await.unwrap(), []);
    assert!(
        taken(target.segment(&item.table.key_map, &"r1".into()).await).await.iter().all(|batch| batch.num_rows() == 0)
    );
    load(target.as_ref(), "r1", &[part(&item, 1)]).await.unwrap();
    load(target.as_ref(), "r2", &[part(&item, 3)]).await.unwrap();
    for target in [target, live.reader().await] {
        assert_eq!(target.segments().await.unwrap(), [segment(&item, "r1", 2), segment(&item, "r2", 2)]);
        assert_eq!(lines(&taken(target.segment(&item.table.key_map, &"r1".into()).await).await), ["L1|1", "L2|2"]);
        assert_eq!(lines(&taken(target.segment(&item.table.key_map, &"r2".into()).await).await), ["L3|3", "L4|4"]);
    }
}

async fn segments_are_read_in_the_order_of_bytes_and_by_themselves(on: On) {
    let live = Live::new(on, "CREATE TABLE item (id VARCHAR(12) PRIMARY KEY)");
    let item = live.ready("item").await;
    let target = live.writer().await;
    load(target.as_ref(), "r1", &[(&item, vec![("id", texts(["b", "ä", "a", "B"]))])]).await.unwrap();
    load(target.as_ref(), "r2", &[(&item, vec![("id", texts(["A"]))])]).await.unwrap();
    let found = taken(target.segment(&item.table.key_map, &"r1".into()).await).await;
    let keys: Vec<_> = found.iter().flat_map(|batch| lines(&[batch.project(&[1]).unwrap()])).collect();
    assert_eq!(keys, ["B", "a", "b", "ä"]);
    let first = found[0].column(0);
    assert_eq!(super::rows::shown(first, 0), "LB", "in the order of the legacy keys' bytes");
}

async fn mappings_are_restored_under_their_run(on: On) {
    let live = Live::new(on, SQL);
    let item = live.ready("item").await;
    let target = live.writer().await;
    load(target.as_ref(), "r1", &[part(&item, 1)]).await.unwrap();
    load(target.as_ref(), "r2", &[part(&item, 3)]).await.unwrap();
    let before = lines(&taken(target.key_map(&item).await).await);
    live.execute(on.choose("DELETE FROM delta_mapping_item", "DELETE FROM delta.key_map_item"));
    let all = (&item, vec![("id", numbers([1, 2, 3, 4])), ("name", texts(["", "", "", ""]))]);
    let restored = |run: &'static str| {
        let (target, item, rows) = (target.clone(), item.clone(), mapped(&all));
        async move {
            let mut load = target.begin(&run.into(), LoadMode::Commit).await.unwrap();
            load.clear_staging(std::slice::from_ref(&item)).await.unwrap();
            load.stage_keys(&item, stream::iter([Ok(rows)]).boxed()).await.unwrap();
            let mut load = load.begin_insert(std::slice::from_ref(&item)).await.unwrap();
            assert_eq!(
                load.append_key_map(&item, &"r1".into(), RowNumber::new(0)..RowNumber::new(2)).await.unwrap(),
                2
            );
            assert_eq!(
                load.append_key_map(&item, &"r2".into(), RowNumber::new(2)..RowNumber::new(4)).await.unwrap(),
                2
            );
            load
        }
    };
    drop(restored("dropped").await);
    live.quiet().await;
    target.unlock().await.unwrap();
    assert!(lines(&taken(target.key_map(&item).await).await).is_empty());
    restored("restore").await.finish().commit().await.unwrap();
    assert_eq!(lines(&taken(target.key_map(&item).await).await), before);
    assert_eq!(target.segments().await.unwrap(), [segment(&item, "r1", 2), segment(&item, "r2", 2)], "noted once");
}

async fn a_target_has_one_id_until_it_adopts_another(on: On) {
    let live = Live::new(on, SQL);
    live.ready("item").await;
    let target = live.writer().await;
    let id = target.identity(true).await.unwrap();
    assert_eq!((id.len(), id[0].len()), (1, 32));
    assert_eq!(live.reader().await.identity(false).await.unwrap(), id);
    let mut load = target.begin(&"r1".into(), LoadMode::Commit).await.unwrap();
    load.clear_staging(&[]).await.unwrap();
    let mut load = load.begin_insert(&[]).await.unwrap();
    load.adopt("another").await.unwrap();
    load.adopt(&id[0]).await.unwrap();
    load.finish().commit().await.unwrap();
    assert_eq!(target.identity(true).await.unwrap(), [id[0].as_str(), "another"]);
    let other = Live::new(on, SQL);
    other.ready("item").await;
    assert_ne!(other.writer().await.identity(true).await.unwrap(), id);
}
