//! Values that are set once and then read without a lock.

use spin::Once;

/// A cell that is empty until it is set once.
pub(crate) struct SetOnce<T>(Once<T>);

impl<T> SetOnce<T> {
    pub(crate) const fn new() -> Self {
        Self(Once::new())
    }

    /// Sets the value, or returns `value` as an error if the cell is already set.
    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        let mut value = Some(value);
        let _ = self.0.try_call_once(|| value.take().ok_or(()));
        value.map_or(Ok(()), Err)
    }

    pub(crate) fn get(&self) -> Option<&T> {
        self.0.get()
    }
}
