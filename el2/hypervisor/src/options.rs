//! The words of the loader's command line: choices for a run.

use crate::controller::Controller;

/// The choices.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Options {
    /// The guests may have devices whose DMA nothing confines, and no SMMU is used.
    pub(crate) trusted_guest: bool,
    /// vCPUs of a guest. Without it, there is one for each CPU.
    pub(crate) vcpus: Option<u16>,
    /// Milliseconds from one move of the guests to the next. Without it, they stay.
    pub(crate) moves: Option<u64>,
    /// Exits are counted by reason, and the counts printed at the end.
    pub(crate) stats: bool,
    /// Exits and injections are printed as they happen.
    pub(crate) trace: bool,
    /// The controller of messages that the guest gets.
    pub(crate) controller: Controller,
}

impl Options {
    /// Reads a command line. Stops the image at a word that means nothing.
    pub(crate) fn parse(command_line: &str) -> Self {
        let mut options = Self::default();
        for word in command_line.split_ascii_whitespace() {
            options.set(word).unwrap_or_else(|| panic!("`{word}` on the command line"));
        }
        options
    }

    /// Makes the choice of a word. `None`: there is none of this name, or of this value.
    fn set(&mut self, word: &str) -> Option<()> {
        match word.split_once('=').unwrap_or((word, "")) {
            ("trusted-guest", "") => self.trusted_guest = true,
            ("stats", "") => self.stats = true,
            ("trace", "") => self.trace = true,
            ("vcpus", number) => self.vcpus = Some(number.parse().ok()?),
            ("moves", number) => self.moves = Some(number.parse().ok()?),
            ("controller", name) => self.controller = Controller::named(name)?,
            _ => return None,
        }
        Some(())
    }
}
