//! A deliberately simple model of pending LPIs, with one set of events per CPU. The module doesn't
//! share any code with the model under test.

use std::collections::BTreeSet;

/// Reference model of two CPUs and of events whose LPIs are all enabled.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    /// Collection of each event.
    collection: Vec<usize>,
    /// CPU of each collection.
    cpu: [usize; 2],
    /// Events whose LPIs are pending, for each CPU.
    pending: [BTreeSet<u32>; 2],
}

impl Reference {
    /// Creates a model in which collection n is mapped to CPU n, and all events are in collection
    /// 0.
    pub(crate) fn new(events: u32) -> Self {
        Self {
            collection: vec![0; events as usize],
            cpu: [0, 1],
            pending: [BTreeSet::new(), BTreeSet::new()],
        }
    }

    fn cpu_of(&self, event: u32) -> usize {
        self.cpu[self.collection[event as usize]]
    }

    pub(crate) fn message(&mut self, event: u32) {
        self.pending[self.cpu_of(event)].insert(event);
    }

    /// Executes CLEAR.
    pub(crate) fn clear(&mut self, event: u32) {
        self.pending[self.cpu_of(event)].remove(&event);
    }

    /// Executes DISCARD and MAPTI.
    pub(crate) fn remap(&mut self, event: u32, collection: u16) {
        self.clear(event);
        self.collection[event as usize] = collection.into();
    }

    /// Executes MOVI.
    pub(crate) fn movi(&mut self, event: u32, collection: u16) {
        let was_pending = self.pending[self.cpu_of(event)].remove(&event);
        self.collection[event as usize] = collection.into();
        if was_pending {
            self.message(event);
        }
    }

    /// Executes MAPC.
    pub(crate) fn mapc(&mut self, collection: u16, cpu: u16) {
        let collection = usize::from(collection);
        let old = std::mem::replace(&mut self.cpu[collection], cpu.into());
        for event in (0..).take(self.collection.len()) {
            if self.collection[event as usize] == collection && self.pending[old].remove(&event) {
                self.message(event);
            }
        }
    }

    /// Executes MOVALL.
    pub(crate) fn movall(&mut self, from: u16, to: u16) {
        let moved = std::mem::take(&mut self.pending[usize::from(from)]);
        self.pending[usize::from(to)].extend(moved);
    }

    /// Acknowledges the LPI of an event. Returns `true` if it was pending at the CPU.
    pub(crate) fn acknowledge(&mut self, cpu: usize, event: u32) -> bool {
        self.pending[cpu].remove(&event)
    }

    /// Returns the interrupts that are pending at a CPU, in ascending order.
    pub(crate) fn pending(&self, cpu: usize) -> Vec<u32> {
        self.pending[cpu].iter().copied().collect()
    }
}
