//! Saves and restores the guest's machine, from the saved state or a damaged one.

use gic_arch::icc;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use vgic::Vcpu;
use vgic::saved_state::SavedState;

use super::Guest;

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
    /// Saves the machine and restores it from the bytes. The machine must be unchanged afterwards.
    pub fn migrate(&mut self) {
        let saved = self.save();
        let bytes = postcard::to_allocvec(&saved).expect("the state fits into memory");
        let received = postcard::from_bytes(&bytes).expect("the bytes were not damaged");
        self.restore(&received).expect("the state was saved by this machine");
        assert_eq!(self.save(), saved);
    }

    /// Restores the machine from damaged bytes. Afterwards, the machine must either be unchanged,
    /// or it must be possible to save and restore it again, and its guest must be able to continue.
    pub fn restore_damaged(&mut self, damages: &[Damage]) {
        let before = self.save();
        let mut bytes = postcard::to_allocvec(&before).expect("the state fits into memory");
        damages.iter().for_each(|damage| damage.inflict(&mut bytes));
        let Ok(damaged) = postcard::from_bytes::<SavedState>(&bytes) else { return };
        match self.restore(&damaged) {
            Ok(()) => self.migrate(),
            Err(refused) => assert_eq!(self.save(), before, "{refused}"),
        }
        self.go_on();
    }

    fn save(&mut self) -> SavedState {
        let _paused: Vec<_> = self.vcpus.iter_mut().map(Vcpu::pause).collect();
        self.gic.save().expect("all vCPUs are paused, and there is memory")
    }

    fn restore(&mut self, saved: &SavedState) -> Result<(), vgic::saved_state::RestoreError> {
        let _paused: Vec<_> = self.vcpus.iter_mut().map(Vcpu::pause).collect();
        self.gic.restore(saved)
    }

    /// Acknowledges pending interrupts, and lets the queue continue.
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
