//! ITS commands (IHI 0069 §5.3) drawn from a fuzzer's bytes.

use doorbell_test_support::guest::program::{Draw, Shape};
use gic_arch::its::{self, RdBase};
use libfuzzer_sys::arbitrary::{self, Arbitrary, Unstructured};

/// Arbitrary 256 bits.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct RawCommand(pub [u64; 4]);

/// A command of a program's guest, which may be wrong.
#[derive(Clone, Copy, Debug)]
pub struct Command(pub its::Command);

impl<'a> Arbitrary<'a> for Command {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let shape = Shape { cpus: 2, lpis: 64, is_direct: false, wired: None };
        let draw = Draw { shape, shares_lpis: bytes.arbitrary()? };
        let mut below = |bound: u32| bytes.int_in_range(0..=bound - 1).unwrap_or_default();
        Ok(Self(draw.command(&mut below)))
    }
}

impl Command {
    /// Encodes the command; `name` returns the RDbase of a redistributor.
    pub fn encode(mut self, name: impl Fn(u16) -> RdBase) -> [u64; 4] {
        let rename =
            |target: &mut RdBase| *target = target.processor_number().map_or(*target, &name);
        match &mut self.0 {
            its::Command::Mapc { target, .. } | its::Command::Sync { target } => rename(target),
            its::Command::Movall { from, to } => [from, to].into_iter().for_each(rename),
            _ => {}
        }
        self.0.encode()
    }
}
