//! Parses the options on the loader's command line.

use crate::controller::Controller;

/// Options for a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Options {
    /// Guests may have devices whose DMA is not confined; the SMMU is not used.
    pub(crate) trusted_guest: bool,
    /// The only guest owns the SMMU, and its redistributors are at addresses at which we receive
    /// devices' messages (`guest_smmu`).
    pub(crate) guest_smmu: bool,
    /// The loader's kernels are firmware, which starts from flash.
    pub(crate) firmware: bool,
    /// Number of vCPUs of each guest. By default, this is the number of CPUs.
    pub(crate) vcpus: Option<u16>,
    /// Milliseconds between two moves of the guests. By default, guests are not moved.
    pub(crate) moves: Option<u64>,
    /// Count exits by reason, and print the counts at the end.
    pub(crate) stats: bool,
    /// Print each exit when it happens.
    pub(crate) exits: bool,
    /// Seconds after which the machine ends, with its reports. By default, it ends with its guests.
    pub(crate) limit: Option<u64>,
    /// Record what happens to interrupts, and print the records at the end.
    pub(crate) trace: bool,
    /// MSI controller of the guests.
    pub(crate) controller: Controller,
}

impl Options {
    /// Parses a command line. Panics if it contains an unknown word.
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
            ("stats", "") => self.stats = true,
            ("exits", "") => self.exits = true,
            ("trace", "") => self.trace = true,
            ("vcpus", number) => self.vcpus = Some(number.parse().ok()?),
            ("moves", number) => self.moves = Some(number.parse().ok()?),
            ("limit", number) => self.limit = Some(number.parse().ok()?),
            ("controller", name) => self.controller = Controller::named(name)?,
            _ => return None,
        }
        Some(())
    }
}
