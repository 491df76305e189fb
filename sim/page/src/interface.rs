//! The functions that the script calls. The script writes into buffers that [`page_add`] returns,
//! and reads those that [`page_output`] returns, until it calls [`page_run`].
//!
//! `unsafe` is needed because symbols are global: two functions with the same name would be
//! undefined behavior. No memory is accessed through pointers here.
//!
//! Context: task; may sleep. Only one thread calls these functions.
#![expect(unsafe_code, reason = "the script finds functions by their names, which are unique")]

use crate::work::{self, Outputs};
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A file: the length of its name in bytes, and its name and contents.
type Added = (usize, Vec<u8>);

/// The files that were added, and the outputs.
static STATE: Mutex<(Vec<Added>, Outputs)> = Mutex::new((Vec::new(), EMPTY));
const EMPTY: Outputs = [const { Vec::new() }; 5];

fn state() -> MutexGuard<'static, (Vec<Added>, Outputs)> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds a file, and returns the buffer into which the caller writes its name, in UTF-8, followed by
/// its contents. Lengths are in bytes.
// SAFETY: No other function has this name.
#[unsafe(no_mangle)]
pub extern "C" fn page_add(name: usize, contents: usize) -> *mut u8 {
    let (files, _) = &mut *state();
    let mut buffer = vec![0; name.saturating_add(contents)];
    let start = buffer.as_mut_ptr();
    files.push((name, buffer));
    start
}

/// Inspects the files that were added.
// SAFETY: No other function has this name.
#[unsafe(no_mangle)]
pub extern "C" fn page_run() {
    let (files, outputs) = &mut *state();
    let files = mem::take(files).into_iter().map(|(name, mut buffer)| {
        let contents = buffer.split_off(name.min(buffer.len()));
        (String::from_utf8_lossy(&buffer).into_owned(), contents)
    });
    *outputs = work::inspect(files.collect());
}

/// Returns the start of an output, by its number.
// SAFETY: No other function has this name.
#[unsafe(no_mangle)]
pub extern "C" fn page_output(number: usize) -> *const u8 {
    state().1.get(number).map_or(std::ptr::null(), Vec::as_ptr)
}

/// Returns the length of an output in bytes.
// SAFETY: No other function has this name.
#[unsafe(no_mangle)]
pub extern "C" fn page_length(number: usize) -> usize {
    state().1.get(number).map_or(0, Vec::len)
}
