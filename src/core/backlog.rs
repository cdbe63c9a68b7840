//! The files of one route that the daemon knows: which one goes next, which wait in their
//! back-off, which are in work. It keeps paths and states, no file content and no clock.
//! Order is the order of arrival; a file that failed comes back behind the ready ones.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::Mono;

/// Where a file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It may be sent.
    Ready,
    /// A worker has it, or its source is being finished.
    InWork,
    /// It waits in its back-off until then.
    Waiting(Mono),
}

#[derive(Debug)]
struct Record<T> {
    place: Place,
    facts: T,
}

/// The files of one route, each with the caller's facts about it.
#[derive(Debug)]
pub struct Backlog<T> {
    records: HashMap<Arc<str>, Record<T>>,
    ready: VecDeque<Arc<str>>,
    waiting: BTreeSet<(Mono, Arc<str>)>,
}

impl<T> Default for Backlog<T> {
    fn default() -> Self {
        Self {
            records: HashMap::new(),
            ready: VecDeque::new(),
            waiting: BTreeSet::new(),
        }
    }
}

impl<T> Backlog<T> {
    /// Takes a file in as ready. Returns false, and changes nothing, if it is known already.
    pub fn add(&mut self, path: &str, facts: T) -> bool {
        if self.records.contains_key(path) {
            return false;
        }
        let path: Arc<str> = path.into();
        self.records.insert(
            Arc::clone(&path),
            Record {
                place: Place::Ready,
                facts,
            },
        );
        self.ready.push_back(path);
        true
    }

    /// The same for a file that has to wait until then.
    pub fn add_waiting(&mut self, path: &str, facts: T, until: Mono) -> bool {
        if self.records.contains_key(path) {
            return false;
        }
        let path: Arc<str> = path.into();
        let place = Place::Waiting(until);
        self.records
            .insert(Arc::clone(&path), Record { place, facts });
        self.waiting.insert((until, path));
        true
    }

    /// Takes the next file into work: the first ready one for which `free` holds.
    pub fn take(&mut self, now: Mono, free: impl Fn(&str) -> bool) -> Option<Arc<str>> {
        while let Some((until, path)) = self.waiting.first().cloned() {
            if until > now {
                break;
            }
            self.waiting.pop_first();
            if let Some(record) = self.records.get_mut(&path) {
                record.place = Place::Ready;
                self.ready.push_back(path);
            }
        }
        let at = self.ready.iter().position(|path| free(path))?;
        let path = self.ready.remove(at)?;
        if let Some(record) = self.records.get_mut(&path) {
            record.place = Place::InWork;
        }
        Some(path)
    }

    /// A file in work comes back and waits until then.
    pub fn put_back(&mut self, path: &str, until: Mono) {
        let Some((key, _)) = self.records.get_key_value(path) else {
            return;
        };
        let key = Arc::clone(key);
        if let Some(record) = self.records.get_mut(path)
            && record.place == Place::InWork
        {
            record.place = Place::Waiting(until);
            self.waiting.insert((until, key));
        }
    }

    /// A file in work comes back and is the next one.
    pub fn put_first(&mut self, path: &str) {
        let Some((key, _)) = self.records.get_key_value(path) else {
            return;
        };
        let key = Arc::clone(key);
        if let Some(record) = self.records.get_mut(path)
            && record.place == Place::InWork
        {
            record.place = Place::Ready;
            self.ready.push_front(key);
        }
    }

    /// The file is done with: it is forgotten. Returns the caller's facts.
    pub fn remove(&mut self, path: &str) -> Option<T> {
        let (key, record) = self.records.remove_entry(path)?;
        match record.place {
            Place::Ready => self.ready.retain(|p| *p != key),
            Place::Waiting(until) => {
                self.waiting.remove(&(until, key));
            }
            Place::InWork => {}
        }
        Some(record.facts)
    }

    /// Takes out the files for which `which` holds and that are not in work; with until when each
    /// has to wait, if it does.
    pub fn take_out(&mut self, which: impl Fn(&T) -> bool) -> Vec<(Arc<str>, T, Option<Mono>)> {
        let leaves = |record: &Record<T>| record.place != Place::InWork && which(&record.facts);
        let mut order: Vec<Arc<str>> = self.ready.iter().cloned().collect();
        order.extend(self.waiting.iter().map(|(_, path)| Arc::clone(path)));
        let mut out = Vec::new();
        for path in order {
            if !self.records.get(&path).is_some_and(leaves) {
                continue;
            }
            if let Some(record) = self.records.remove(&path) {
                let until = match record.place {
                    Place::Waiting(until) => Some(until),
                    _ => None,
                };
                out.push((path, record.facts, until));
            }
        }
        let records = &self.records;
        self.ready.retain(|path| records.contains_key(path));
        self.waiting.retain(|(_, path)| records.contains_key(path));
        out
    }

    /// The caller's facts about a file.
    pub fn facts(&mut self, path: &str) -> Option<&mut T> {
        self.records.get_mut(path).map(|r| &mut r.facts)
    }

    /// Every file and the caller's facts about it, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &T)> {
        self.records.iter().map(|(path, r)| (path, &r.facts))
    }

    /// Where a file stands.
    pub fn place(&self, path: &str) -> Option<Place> {
        self.records.get(path).map(|r| r.place)
    }

    /// Files that may be sent now.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Files that may be sent at that time: the ready ones, and those whose back-off is over.
    pub fn due(&self, now: Mono) -> usize {
        let over = self.waiting.iter().take_while(|(until, _)| *until <= now);
        self.ready.len() + over.count()
    }

    /// Files in their back-off.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// All files known.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether no file is known.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn a_failed_file_comes_back_behind_the_ready_ones() {
        let mut backlog = Backlog::default();
        for path in ["a", "b", "c"] {
            assert!(backlog.add(path, ()));
        }
        assert!(!backlog.add("a", ()));
        let first = backlog.take(Duration::ZERO, |_| true).expect("a file");
        backlog.put_back(&first, Duration::from_secs(1));
        let order: Vec<_> = (0..3)
            .filter_map(|_| backlog.take(Duration::from_secs(1), |_| true))
            .collect();
        assert_eq!(
            order.iter().map(|p| &**p).collect::<Vec<_>>(),
            ["b", "c", "a"]
        );
    }

    #[test]
    fn a_file_whose_name_is_in_flight_does_not_hold_up_the_others() {
        let mut backlog = Backlog::default();
        backlog.add("a", ());
        backlog.add("b", ());
        assert_eq!(
            backlog.take(Duration::ZERO, |p| p != "a").as_deref(),
            Some("b")
        );
        assert_eq!(backlog.ready(), 1);
    }

    #[test]
    fn what_is_in_work_is_not_taken_out_and_the_rest_keeps_its_order() {
        let mut backlog = Backlog::default();
        for (path, touched) in [("a", false), ("b", true), ("c", false), ("d", false)] {
            assert!(backlog.add(path, touched));
        }
        let until = Duration::from_secs(9);
        assert!(backlog.add_waiting("e", false, until));
        assert_eq!(backlog.take(Duration::ZERO, |_| true).as_deref(), Some("a"));
        let out = backlog.take_out(|touched| !touched);
        let out: Vec<_> = out.iter().map(|(p, _, until)| (&**p, *until)).collect();
        assert_eq!(out, [("c", None), ("d", None), ("e", Some(until))]);
        assert_eq!(
            (backlog.len(), backlog.ready(), backlog.waiting()),
            (2, 1, 0)
        );
        assert_eq!(backlog.take(until, |_| true).as_deref(), Some("b"));
    }

    proptest! {
        /// Whatever happens, every file is in exactly one place and none is lost or doubled.
        #[test]
        fn every_file_is_in_exactly_one_place(
            steps in prop::collection::vec((0u8..6, 0u8..12, 0u64..20), 1..200),
        ) {
            let mut backlog = Backlog::default();
            let mut known = BTreeSet::new();
            let mut in_work = BTreeSet::new();
            let mut now = Duration::ZERO;
            for (step, file, by) in steps {
                let name = format!("f{file}");
                match step {
                    0 => prop_assert_eq!(backlog.add(&name, ()), known.insert(name)),
                    1 => if let Some(path) = backlog.take(now, |p| p != name) {
                        prop_assert!(in_work.insert(path.to_string()));
                    },
                    2 => {
                        backlog.put_back(&name, now + Duration::from_secs(by));
                        in_work.remove(&name);
                    }
                    4 => {
                        backlog.put_first(&name);
                        if in_work.remove(&name) {
                            let next = backlog.take(now, |_| true);
                            prop_assert_eq!(next.as_deref(), Some(&*name));
                            in_work.insert(name);
                        }
                    }
                    3 => {
                        prop_assert_eq!(backlog.remove(&name).is_some(), known.remove(&name));
                        in_work.remove(&name);
                    }
                    _ => now += Duration::from_secs(by),
                }
                prop_assert_eq!(backlog.len(), known.len());
                prop_assert_eq!(backlog.ready() + backlog.waiting() + in_work.len(), known.len());
            }
        }
    }
}
