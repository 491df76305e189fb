//! The guest's machine is saved and restored, from what was saved or from something like it.

use gic_arch::icc;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use vgic::saved_state::SavedState;

use super::Guest;

/// A change of a saved state's bytes.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Damage {
    /// Bits of a byte flip.
    Flip { at: u16, bits: u8 },
    /// A byte is lost.
    Drop { at: u16 },
    /// A byte comes in between.
    Insert { at: u16, byte: u8 },
    /// Bytes from elsewhere.
    Copy { from: u16, to: u16, count: u8 },
}

impl Damage {
    /// The state that its damaged bytes describe, if they describe one.
    pub fn to(self, state: &SavedState) -> Option<SavedState> {
        let mut bytes = postcard::to_allocvec(state).expect("it fits into memory");
        self.inflict(&mut bytes);
        postcard::from_bytes(&bytes).ok()
    }

    fn inflict(self, bytes: &mut Vec<u8>) {
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

impl Guest {
    /// The machine is saved, and restored from the bytes. It is the same afterwards.
    pub fn migrate(&mut self) {
        let saved = self.save();
        let bytes = postcard::to_allocvec(&saved).expect("it fits into memory");
        let received = postcard::from_bytes(&bytes).expect("it was not damaged");
        self.restore(&received).expect("it was saved here");
        assert_eq!(self.save(), saved);
    }

    /// The machine is restored from damaged bytes. Either nothing happens to it, or it can be saved
    /// and restored again, and its guest can go on.
    pub fn restore_damaged(&mut self, damages: &[Damage]) {
        let before = self.save();
        let mut bytes = postcard::to_allocvec(&before).expect("it fits into memory");
        damages.iter().for_each(|damage| damage.inflict(&mut bytes));
        let Ok(damaged) = postcard::from_bytes::<SavedState>(&bytes) else { return };
        match self.restore(&damaged) {
            Ok(()) => self.migrate(),
            Err(refused) => assert_eq!(self.save(), before, "{refused}"),
        }
        self.go_on();
    }

    fn save(&mut self) -> SavedState {
        self.gic.freeze(&mut self.vcpus).expect("all are here").save().expect("there is memory")
    }

    fn restore(&mut self, saved: &SavedState) -> Result<(), vgic::saved_state::RestoreError> {
        self.gic.freeze(&mut self.vcpus).expect("all are here").restore(saved)
    }

    /// Some interrupts are taken, whatever they are, and the queue goes on.
    fn go_on(&mut self) {
        for vcpu in &mut self.vcpus {
            for _ in 0..64 {
                let intid = vcpu.read_sysreg(icc::IAR1.encoding()).expect("ICC_IAR1_EL1");
                _ = vcpu.write_sysreg(icc::EOIR1.encoding(), intid);
            }
        }
        _ = self.gic.poll();
    }
}
