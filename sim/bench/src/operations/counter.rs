//! Counts an operation: its repetitions here, and its instructions by callgrind.

/// Repetitions of an operation.
#[derive(Debug, Default)]
pub(super) struct Counter {
    pub(super) operations: u32,
}

impl Counter {
    /// Runs `work`, which performs `operations` operations.
    pub(super) fn count(&mut self, operations: u32, mut work: impl FnMut()) {
        self.operations += operations;
        counted(&mut work);
    }
}

/// Runs `work`. callgrind counts the instructions between this function's entry and return.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
}
