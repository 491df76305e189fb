//! Damages a saved state's bytes.

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use vgic::saved_state::SavedState;

/// A change to a saved state's bytes.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Damage {
    /// Flips bits of a byte.
    Flip { at: u16, bits: u8 },
    /// Removes a byte.
    Drop { at: u16 },
    /// Inserts a byte.
    Insert { at: u16, byte: u8 },
    /// Copies bytes from elsewhere.
    Copy { from: u16, to: u16, count: u8 },
}

impl Damage {
    /// Returns the state described by its damaged bytes, if they are valid.
    pub fn to(self, state: &SavedState) -> Option<SavedState> {
        let mut bytes = postcard::to_allocvec(state).expect("the state fits into memory");
        self.inflict(&mut bytes);
        postcard::from_bytes(&bytes).ok()
    }

    pub(crate) fn inflict(self, bytes: &mut Vec<u8>) {
        let place = |at: u16| usize::from(at) % bytes.len().max(1);
        match self {
            _ if bytes.is_empty() => {}
            Self::Flip { at, bits } => {
                let at = place(at);
                bytes[at] ^= bits;
            }
            Self::Drop { at } => drop(bytes.remove(place(at))),
            Self::Insert { at, byte } => bytes.insert(place(at), byte),
            Self::Copy { from, to, count } => {
                let (from, to) = (place(from), place(to));
                let end = (from + usize::from(count)).min(bytes.len()).min(bytes.len() - to + from);
                bytes.copy_within(from..end, to);
            }
        }
    }
}
