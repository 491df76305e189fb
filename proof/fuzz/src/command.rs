//! ITS commands (IHI 0069 §5.3) drawn from a fuzzer's bytes.

use doorbell_test_support::guest::program::{Draw, Shape};
use gic_arch::its;
use libfuzzer_sys::arbitrary::{self, Arbitrary, Unstructured};

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
