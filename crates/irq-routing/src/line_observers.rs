//! The line observers for one interrupt controller. Observers are never removed while the list
//! exists, so readers need no lock.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use msi_types::{Line, LineObserver};
use once_cell::race::OnceBox;

/// A line observer that notifies several others of every ended interrupt, in the order in which
/// they were added. An interrupt controller only accepts one observer, but a VMM typically has one
/// for each kind of device. An observer can't be removed, so it should hold devices that may be
/// unplugged weakly.
#[derive(Default)]
pub struct LineObservers {
    first: OnceBox<Node>,
}

struct Node {
    observer: Arc<dyn LineObserver>,
    next: OnceBox<Node>,
}

impl LineObservers {
    /// Creates an empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an observer. The observer is notified of all interrupts that end after this call has
    /// returned. Acquires no lock.
    ///
    /// Context: any.
    pub fn add(&self, observer: Arc<dyn LineObserver>) {
        let mut node = Box::new(Node { observer, next: OnceBox::new() });
        let mut place = &self.first;
        // If this fails, another thread has just appended an observer. Move on to the new end.
        while let Err(refused) = place.set(node) {
            node = refused;
            let Some(last) = place.get() else { return };
            place = &last.next;
        }
    }

    fn nodes(&self) -> impl Iterator<Item = &Node> {
        core::iter::successors(self.first.get(), |node| node.next.get())
    }
}

impl LineObserver for LineObservers {
    fn deactivated(&self, line: Line) {
        self.nodes().for_each(|node| node.observer.deactivated(line));
    }
}

impl fmt::Debug for LineObservers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineObservers").field("count", &self.nodes().count()).finish()
    }
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use std::sync::Mutex;
    use std::thread;

    struct Counter(Mutex<Vec<Line>>);

    impl LineObserver for Counter {
        fn deactivated(&self, line: Line) {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(line);
        }
    }

    fn counter() -> Arc<Counter> {
        Arc::new(Counter(Mutex::default()))
    }

    fn heard(counter: &Counter) -> Vec<Line> {
        counter.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    #[test]
    fn a_new_observer_gets_no_earlier_notifications() {
        let (observers, first, second) = (LineObservers::new(), counter(), counter());
        observers.deactivated(Line::Spi(40));
        observers.add(first.clone());
        observers.deactivated(Line::Spi(41));
        observers.add(second.clone());
        observers.deactivated(Line::Spi(42));
        assert_eq!(heard(&first), [Line::Spi(41), Line::Spi(42)]);
        assert_eq!(heard(&second), [Line::Spi(42)]);
    }

    #[test]
    fn concurrently_added_observers_are_all_notified() {
        let observers = LineObservers::new();
        let counters: Vec<_> = (0..4).map(|_| (0..100).map(|_| counter()).collect()).collect();
        thread::scope(|scope| {
            for group in &counters {
                let group: &Vec<Arc<Counter>> = group;
                let observers = &observers;
                scope.spawn(move || group.iter().for_each(|one| observers.add(one.clone())));
            }
        });
        observers.deactivated(Line::Spi(40));
        assert!(counters.iter().flatten().all(|one| heard(one) == [Line::Spi(40)]));
    }
}
