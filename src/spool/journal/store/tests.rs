//! The store against a model, and against files that are no journal.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

pub(super) fn key(route: u8, path: u8) -> Key {
    Key {
        route: format!("r{route}").into(),
        path: format!("p{path}").into(),
    }
}

pub(super) fn version(n: u64) -> Stamp {
    Stamp {
        dev: 1 << 63 | n,
        ino: n,
        size: n,
        mtime_ns: -1,
    }
}

fn failing(n: u32) -> Failing {
    Failing {
        version: version(n.into()),
        first: f64::from(n) / 3.0,
        seconds: f64::from(n) / 7.0,
    }
}

fn change() -> impl Strategy<Value = Change> {
    let of = || (0u8..2, 0u8..3).prop_map(|(r, p)| key(r, p));
    let sent = || prop::option::of((0u64..4).prop_map(version));
    prop_oneof![
        (of(), 0u8..3, 0u8..8, sent(), 0u8..3).prop_map(|(of, temp, stage, sent, target)| {
            Change::Attempt {
                of,
                temp: format!("t{temp}"),
                stage: Stage::from_u8(stage),
                sent,
                target: (target > 0).then(|| format!("n{target}")),
                place: (target > 1).then(|| format!("d{target}").into()),
            }
        }),
        (of(), 1u32..9).prop_map(|(of, failures)| Change::Waiting {
            of,
            failures,
            next: f64::from(failures),
            error: "e".into(),
            failing: failing(failures),
        }),
        (of(), 0u64..4).prop_map(|(of, n)| Change::Delivered {
            of,
            sent: version(n),
            at: 1.0,
            name: None,
        }),
        (of(), sent()).prop_map(|(of, kept)| Change::Finished { of, kept }),
        of().prop_map(|of| Change::Forgotten { of }),
        (0u8..2).prop_map(|r| Change::Remade {
            route: key(r, 0).route
        }),
        (1u64..4, 0u8..3).prop_map(|(id, n)| Change::Incident {
            id,
            at: id as f64,
            body: format!("{id} {n}"),
        }),
        (0u8..2, 0u8..3, prop::option::of(0u64..9)).prop_map(|(r, p, gone)| Change::Gone {
            route: key(r, p).route,
            paths: vec![key(r, p).path],
            gone: gone.map(|at| at as f64),
        }),
        Just(Change::Probe),
    ]
}

/// What a journal has to know, as plain maps.
#[derive(Default)]
struct Model {
    files: BTreeMap<String, Unfinished>,
    kept: BTreeMap<String, (Key, Stamp)>,
    incidents: BTreeMap<u64, String>,
}

impl Model {
    fn file(&mut self, of: &Key) -> &mut Unfinished {
        let made = || Unfinished {
            of: of.clone(),
            failures: 0,
            failing: None,
            next: 0.0,
            delivered: None,
            attempts: Vec::new(),
        };
        self.files.entry(format!("{of:?}")).or_insert_with(made)
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Attempt {
                of, temp, stage, ..
            } if *stage == Stage::Opened => {
                let name = format!("{of:?}");
                if let Some(file) = self.files.get_mut(&name) {
                    file.attempts.retain(|a| a.temp != *temp);
                    let idle = file.failures == 0 && file.delivered.is_none();
                    if idle && file.attempts.is_empty() {
                        self.files.remove(&name);
                    }
                }
            }
            Change::Attempt {
                of,
                temp,
                stage,
                sent,
                target,
                place,
            } => {
                let file = self.file(of);
                if sent.is_some() && file.delivered != *sent {
                    file.delivered = None;
                }
                let attempts = &mut file.attempts;
                match attempts.iter_mut().find(|a| a.temp == *temp) {
                    Some(known) => {
                        known.stage = *stage;
                        known.sent = sent.or(known.sent);
                        known.target = target.clone().or(known.target.take());
                        known.place = place.clone().or(known.place.take());
                    }
                    None => attempts.push(KnownAttempt {
                        temp: temp.clone(),
                        stage: *stage,
                        sent: *sent,
                        target: target.clone(),
                        place: place.clone(),
                    }),
                }
            }
            Change::Waiting {
                of,
                failures,
                next,
                failing,
                ..
            } => {
                let file = self.file(of);
                (file.failures, file.next) = (*failures, *next);
                file.failing = Some(*failing);
            }
            Change::Delivered { of, sent, .. } => {
                let file = self.file(of);
                (file.failures, file.next) = (0, 0.0);
                file.failing = None;
                file.delivered = Some(*sent);
                file.attempts.clear();
            }
            Change::Finished { of, kept } => {
                let name = format!("{of:?}");
                self.files.remove(&name);
                match kept {
                    Some(stamp) => drop(self.kept.insert(name, (of.clone(), *stamp))),
                    None => drop(self.kept.remove(&name)),
                }
            }
            Change::Forgotten { of } => drop(self.files.remove(&format!("{of:?}"))),
            Change::Remade { route } => {
                for file in self.files.values_mut().filter(|f| f.of.route == *route) {
                    for attempt in &mut file.attempts {
                        attempt.stage = match attempt.stage {
                            Stage::Publishing | Stage::Replacing => Stage::Sending,
                            Stage::Stored => Stage::Storing,
                            stage => stage,
                        };
                    }
                }
            }
            Change::Incident { id, body, .. } => drop(self.incidents.insert(*id, body.clone())),
            Change::Gone { .. } | Change::Sweep { .. } | Change::Probe => {}
        }
    }

    fn check(&self, store: &Store) {
        let mut found = store.unfinished().unwrap();
        found.sort_by_key(|f| format!("{:?}", f.of));
        assert_eq!(found, self.files.values().cloned().collect::<Vec<_>>());
        let mut kept = store.kept().unwrap();
        kept.sort_by_key(|(of, _)| format!("{of:?}"));
        assert_eq!(kept, self.kept.values().cloned().collect::<Vec<_>>());
        let last = self.incidents.keys().last().copied().unwrap_or(0);
        let incidents = self.incidents.values().cloned().collect();
        assert_eq!(store.incidents(0.0).unwrap(), (incidents, last));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever is written, in batches and with reopenings in between, is what is read back.
    #[test]
    fn what_was_written_is_read_back_after_any_restart(
        batches in prop::collection::vec(prop::collection::vec(change(), 1..12), 1..12),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        let mut model = Model::default();
        for batch in &batches {
            let opened = Store::open(&path).unwrap();
            prop_assert!(opened.set_aside.is_none());
            let mut store = opened.store;
            store.apply(batch.iter()).unwrap();
            batch.iter().for_each(|change| model.apply(change));
            model.check(&store);
        }
        model.check(&Store::open(&path).unwrap().store);
    }
}

#[test]
fn a_damaged_or_foreign_file_is_set_aside_whole_and_a_new_journal_begins() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let other = Connection::open(dir.path().join("other")).unwrap();
    other.execute_batch("CREATE TABLE theirs (a)").unwrap();
    drop(other);
    let theirs = std::fs::read(dir.path().join("other")).unwrap();
    for (number, bytes) in [b"no database at all".repeat(100), theirs]
        .iter()
        .enumerate()
    {
        std::fs::write(&path, bytes).unwrap();
        let opened = Store::open(&path).unwrap();
        let (place, why) = opened.set_aside.expect("set aside");
        assert!(!why.is_empty());
        assert_eq!(&std::fs::read(&place).unwrap(), bytes, "untouched");
        assert!(
            place
                .to_string_lossy()
                .ends_with(&format!("unreadable-{}", number + 1))
        );
        assert!(opened.store.unfinished().unwrap().is_empty());
        drop(opened.store);
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_journal_of_a_newer_version_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    drop(Store::open(&path).unwrap());
    let newer = Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    let before = std::fs::read(&path).unwrap();
    let refusal = Store::open(&path).err().expect("refused").to_string();
    assert!(refusal.contains("version 99"), "{refusal}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_batch_that_fails_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let mut store = Store::open(&path).unwrap().store;
    store
        .connection
        .pragma_update(None, "query_only", true)
        .unwrap();
    let change = Change::Delivered {
        of: key(0, 0),
        sent: version(1),
        at: 1.0,
        name: Some("p-1".into()),
    };
    assert!(store.apply([&change, &Change::Probe].into_iter()).is_err());
    store
        .connection
        .pragma_update(None, "query_only", false)
        .unwrap();
    assert!(store.unfinished().unwrap().is_empty());
    store.apply([&change].into_iter()).unwrap();
    assert_eq!(store.unfinished().unwrap().len(), 1);
}

pub(super) fn count(store: &Store, what: &str) -> i64 {
    let count = format!("SELECT count(*) FROM {what}");
    store
        .connection
        .query_row(&count, [], |r| r.get(0))
        .unwrap()
}

#[test]
fn what_is_over_its_time_is_dropped_and_what_is_not_finished_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let mut store = Store::open(&path).unwrap().store;
    let waiting = |of, next| Change::Waiting {
        of,
        failures: 1,
        next,
        failing: failing(1),
        error: "e".into(),
    };
    let attempt = |of| Change::Attempt {
        of,
        temp: "t".into(),
        stage: Stage::Sending,
        sent: None,
        target: None,
        place: None,
    };
    let incident = |id: u64| Change::Incident {
        id,
        at: id as f64,
        body: id.to_string(),
    };
    let delivered = |of, at| Change::Delivered {
        of,
        sent: version(1),
        at,
        name: None,
    };
    let changes = [
        waiting(key(0, 0), -3e6),
        waiting(key(0, 1), 1.0),
        waiting(key(0, 2), -3e6),
        attempt(key(0, 2)),
        delivered(key(0, 3), 1.0),
        delivered(key(0, 4), 3.0),
        incident(1),
        incident(2),
    ];
    store.apply(changes.iter()).unwrap();
    assert!(!store.expire(2.0).unwrap());
    let files = store.unfinished().unwrap();
    let paths: Vec<_> = files.iter().map(|f| &*f.of.path).collect();
    assert_eq!(paths, ["p1", "p2", "p3", "p4"]);
    assert_eq!(count(&store, "delivery"), 1);
    assert_eq!(store.incidents(0.0).unwrap(), (vec!["2".to_owned()], 2));
    // A number is never given twice, even where all incidents are forgotten.
    store.expire(9.0).unwrap();
    assert_eq!(store.incidents(0.0).unwrap(), (Vec::new(), 2));
    let many: Vec<_> = (3..4000).map(incident).collect();
    store.apply(many.iter()).unwrap();
    while store.expire(0.0).unwrap() {}
    let (kept, last) = store.incidents(0.0).unwrap();
    assert_eq!((kept.len(), last), (INCIDENTS, 3999));
    assert_eq!(kept.last().map(String::as_str), Some("3999"));
}

#[test]
fn a_kept_file_is_forgotten_only_when_it_was_gone_for_the_whole_history() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let mut store = Store::open(&path).unwrap().store;
    let keep = |n| Change::Finished {
        of: key(0, n),
        kept: Some(version(1)),
    };
    let gone = |n, gone| Change::Gone {
        route: key(0, n).route,
        paths: vec![key(0, n).path],
        gone,
    };
    let changes = [
        (0..5).map(keep).collect(),
        vec![gone(0, Some(1.0)), gone(0, Some(9.0))], // the first time counts
        vec![gone(1, Some(9.0))],
        vec![gone(2, Some(1.0)), gone(2, None)], // it is back
        vec![gone(3, Some(1.0)), keep(3)],       // delivered anew
    ]
    .concat();
    store.apply(changes.iter()).unwrap();
    let (journal, drawer) = crate::spool::journal::journal();
    let rows = KeptRows::new(&path, "r0", journal);
    let noted = rows.after("p0", 3).unwrap().unwrap();
    let noted: Vec<_> = noted.iter().map(|(p, gone)| (&**p, *gone)).collect();
    assert_eq!(noted, [("p1", true), ("p2", false), ("p3", false)]);
    assert!(rows.note(vec!["p4".into()], Some(1.0)));
    for entry in drawer.draw() {
        store.apply([&entry.change].into_iter()).unwrap();
    }
    while store.expire(5.0).unwrap() {}
    let left = store.kept().unwrap();
    let left: Vec<_> = left.iter().map(|(of, _)| &*of.path).collect();
    assert_eq!(left, ["p1", "p2", "p3"]);
}

#[test]
fn a_journal_of_any_older_version_is_taken_on_with_what_it_knows() {
    for old in 1..MIGRATIONS.len() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        let connection = Connection::open(&path).unwrap();
        for step in &MIGRATIONS[..old] {
            connection.execute_batch(step).unwrap();
        }
        connection
            .execute_batch(&format!(
                "PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {old};
                 INSERT INTO file (route, path, failures, next) VALUES ('r0', 'p0', 3, 4.0);"
            ))
            .unwrap();
        drop(connection);
        let Opened {
            mut store,
            set_aside,
        } = Store::open(&path).unwrap();
        assert!(set_aside.is_none(), "version {old}");
        let known = store.unfinished().unwrap();
        assert_eq!((known[0].failures, known[0].failing), (3, None));
        let waiting = Change::Waiting {
            of: known[0].of.clone(),
            failures: 4,
            next: 5.0,
            error: "e".into(),
            failing: failing(1),
        };
        store.apply([waiting].iter()).unwrap();
        let known = store.unfinished().unwrap();
        assert_eq!((known.len(), known[0].failing), (1, Some(failing(1))));
    }
}
