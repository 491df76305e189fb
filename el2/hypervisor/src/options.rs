//! Parses the options on the loader's command line.

use crate::controller::Controller;
use el2_vm::MAX_VCPUS;

/// Options for a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Options {
    /// Options for the run itself.
    pub(crate) run: el2_vm::Options,
    /// Guests may have devices whose DMA is not confined; the SMMU is not used.
    pub(crate) trusted_guest: bool,
    /// The only guest owns the SMMU, and its redistributors are at addresses at which we receive
    /// devices' messages (`guest_smmu`).
    pub(crate) guest_smmu: bool,
    /// The loader's kernels are firmware, which starts from flash.
    pub(crate) firmware: bool,
    /// Bytes from the start of each guest's RAM to its kernel. By default, the RAM starts at the
    /// 2 MiB boundary before the kernel.
    pub(crate) offset: Option<u64>,
    /// Bytes from each kernel to its first instruction.
    pub(crate) entry: u64,
    /// Number of vCPUs of each guest. By default, this is the number of CPUs.
    pub(crate) vcpus: Option<u16>,
    /// MSI controller of the guests.
    pub(crate) controller: Controller,
}

impl Options {
    /// Parses a command line. Panics if it contains an unknown word, or asks for more vCPUs than a
    /// guest can have.
    pub(crate) fn parse(command_line: &str) -> Self {
        let mut options = Self::default();
        for word in command_line.split_ascii_whitespace() {
            options
                .set(word)
                .unwrap_or_else(|| panic!("the command line contains an unknown word, `{word}`"));
        }
        options
    }

    /// Sets the option for a word. Returns `None` if the option or its value is unknown.
    fn set(&mut self, word: &str) -> Option<()> {
        match word.split_once('=').unwrap_or((word, "")) {
            ("trusted-guest", "") => self.trusted_guest = true,
            ("guest-smmu", "") => {
                self.guest_smmu = true;
                self.trusted_guest = true;
            }
            ("firmware", "") => self.firmware = true,
            ("direct", "") => self.run.direct = true,
            ("stats", "") => self.run.stats = true,
            ("offset", number) => self.offset = Some(number.parse().ok()?),
            ("entry", number) => self.entry = number.parse().ok()?,
            ("vcpus", number) => {
                let vcpus: u16 = number.parse().ok()?;
                let is_possible = (1..=MAX_VCPUS).contains(&vcpus.into());
                assert!(is_possible, "a guest can have 1 to {MAX_VCPUS} vCPUs, but not {vcpus}");
                self.vcpus = Some(vcpus);
            }
            ("moves", number) => self.run.moves = Some(number.parse().ok()?),
            ("controller", name) => self.controller = Controller::named(name)?,
            _ => return None,
        }
        Some(())
    }
}
