//! A QEMU whose CPUs are stopped or only acknowledge interrupts. The program communicates with QEMU
//! over standard input and output, and resets it through its monitor.

use super::access::{Access, Width};
use super::acknowledge::Acknowledged;
use super::address_map::{CPUS, USED};
use super::peer::{Asserted, Peer, PeerReply, Watch};
use super::program::{LIST, MOST, PROGRAM, PROGRAM_BASE, mailbox};
use super::world::World;
use crate::qtest::Qtest;
use anyhow::{Context, Result, bail, ensure};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Maximum time for QEMU to start up.
const START: Duration = Duration::from_secs(30);
/// Maximum time for the monitor to answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Pause between two checks whether the CPUs have finished.
const PAUSE: Duration = Duration::from_micros(200);
/// Number of bytes of protocol lines to send before reading the replies, which is the capacity of a
/// pipe.
const SENT_AHEAD: usize = 0x8000;

/// A QEMU process.
#[derive(Debug)]
pub struct Qemu {
    qtest: Qtest,
    monitor: BufReader<UnixStream>,
    world: World,
    watch: Watch,
    asserted: Asserted,
}

/// First QEMU version known to support interception of outputs by name. (Version 7.2 does not.)
const INTERCEPTS_BY_NAME: (u32, u32) = (10, 0);

impl Qemu {
    /// Starts QEMU by a command without arguments. The socket of QEMU's monitor and the program of
    /// its CPUs are created in `folder`, which must outlive QEMU.
    ///
    /// # Errors
    /// Returns an error if QEMU cannot be started, or if its monitor does not respond.
    pub fn start(mut command: Command, folder: &Path, world: World) -> Result<Self> {
        let (socket, image) = (folder.join("qmp"), folder.join("image"));
        let bytes: Vec<u8> = PROGRAM.iter().flat_map(|word| word.to_le_bytes()).collect();
        std::fs::write(&image, bytes)?;
        command.args(["-M", machine(world), "-cpu", "cortex-a57", "-m", "128M"]);
        command.args(["-smp", &CPUS.to_string(), "-display", "none", "-nodefaults"]);
        command.args(processors(world, &image)).arg("-qmp");
        command.arg(format!("unix:{},server=on,wait=off", socket.display()));
        let mut qtest = Qtest::start(command)?;
        let monitor = connect(&mut qtest.child, &socket)?;
        let asserted = Asserted::default();
        let mut qemu = Self { qtest, monitor, world, watch: Watch::One, asserted };
        let greeting = qemu.monitor("qmp_capabilities", "\"QMP\"")?;
        if version(&greeting).is_some_and(|version| version >= INTERCEPTS_BY_NAME) {
            qemu.watch = Watch::All;
        }
        qemu.qtest.tell(&qemu.watch.to_string())?;
        Ok(qemu)
    }

    /// Returns the reply to a line of the protocol, without changes of watched inputs.
    ///
    /// # Errors
    /// Returns an error if QEMU has exited.
    pub fn answer(&mut self, line: &str) -> Result<String> {
        self.qtest.send(&format!("{line}\n"))?;
        self.qtest.reply(|_| ())
    }

    /// Sends a command to the monitor.
    fn order(&mut self, command: &str) -> Result<()> {
        writeln!(self.monitor.get_mut(), "{{\"execute\":\"{command}\"}}")
            .context("QEMU's monitor has closed the connection")
    }

    /// Sends a command to the monitor. Returns the first line of the reply that contains `awaited`.
    fn monitor(&mut self, command: &str, awaited: &str) -> Result<String> {
        self.order(command)?;
        let mut line = String::new();
        loop {
            line.clear();
            let read =
                self.monitor.read_line(&mut line).context("QEMU's monitor does not answer")?;
            ensure!(read > 0, "QEMU's monitor has closed the connection");
            if line.contains(awaited) {
                return Ok(line);
            }
        }
    }

    /// Waits for a CPU to finish, and returns the interrupts that the CPU acknowledged.
    fn acknowledged(&mut self, cpu: u16) -> Result<Vec<Acknowledged>> {
        let dump = Access::Dump { at: mailbox(cpu), bytes: LIST + 8 * MOST as u64 };
        let deadline = Instant::now() + ANSWER;
        loop {
            // The reply may follow changes of watched inputs.
            let reply = self.replies(&mut std::iter::once(dump))?.pop().context("no reply")?;
            let words = words(reply.text.strip_prefix("OK 0x").context("no digits")?)?;
            if let [0, count, _, _, list @ ..] = &*words {
                let pairs = list.chunks_exact(2).take(usize::try_from(*count)?);
                let both = |pair: &[u32]| Acknowledged { intid: pair[0], priority: pair[1] };
                return Ok(pairs.map(both).collect());
            }
            ensure!(Instant::now() < deadline, "QEMU's CPU {cpu} does not answer");
            // Without this pause, the loop would hold the lock that the CPUs need.
            std::thread::sleep(PAUSE);
        }
    }
}

/// Parses little-endian words in hexadecimal digits.
fn words(digits: &str) -> Result<Vec<u32>> {
    let words = digits.as_bytes().chunks_exact(8).map(|word| {
        let word = str::from_utf8(word)?;
        Ok(u32::from_str_radix(word, 16)?.swap_bytes())
    });
    words.collect()
}

fn machine(world: World) -> &'static str {
    match world {
        World::Stopped | World::Running => "virt,gic-version=3,its=on",
        World::NonSecure => "virt,gic-version=3,its=on,secure=on",
    }
}

/// Returns arguments that either keep the CPUs stopped or make them run the program in this file.
fn processors(world: World, image: &Path) -> Vec<String> {
    // Debian builds QEMU without the `qtest` accelerator; an emulator with stopped CPUs serves the
    // same purpose. With a single emulation thread, a CPU that waits yields to the next one.
    let mut arguments = ["-S", "-accel", "tcg,thread=single"].map(str::to_owned).to_vec();
    let first = match world {
        World::Stopped => return arguments,
        World::Running => 1,
        World::NonSecure => CPUS,
    };
    let program = format!("loader,file={},addr={PROGRAM_BASE},force-raw=on", image.display());
    let starts = (0..first).map(|cpu| format!("loader,addr={PROGRAM_BASE},cpu-num={cpu}"));
    for device in std::iter::once(program).chain(starts) {
        arguments.extend(["-device".to_owned(), device]);
    }
    arguments
}

/// Returns the major and minor version in the monitor's greeting.
fn version(greeting: &str) -> Option<(u32, u32)> {
    let number = |name: &str| {
        let rest = greeting.split_once(name)?.1.trim_start_matches([':', ' ']);
        rest.split(|digit: char| !digit.is_ascii_digit()).next()?.parse().ok()
    };
    number("\"major\"").zip(number("\"minor\""))
}

/// Connects to the monitor of a QEMU that is still starting.
fn connect(child: &mut Child, socket: &Path) -> Result<BufReader<UnixStream>> {
    let deadline = Instant::now() + START;
    loop {
        if let Ok(stream) = UnixStream::connect(socket) {
            stream.set_read_timeout(Some(ANSWER))?;
            return Ok(BufReader::new(stream));
        }
        if let Some(status) = child.try_wait()? {
            bail!("QEMU ended with {status}");
        }
        ensure!(Instant::now() < deadline, "QEMU did not open a monitor at {}", socket.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Peer for Qemu {
    /// Resets QEMU. Once the CPUs have answered the first request for acknowledgments, they have
    /// been set up.
    fn reset(&mut self) -> Result<()> {
        self.monitor("system_reset", "\"RESET\"")?;
        if self.world != World::Stopped {
            self.acknowledge(0..CPUS)?;
        }
        let bytes = USED.end - USED.start;
        let clear = Access::Fill { at: USED.start, bytes, byte: 0 };
        self.replies(&mut std::iter::once(clear)).map(drop)
    }

    fn replies(&mut self, accesses: &mut dyn Iterator<Item = Access>) -> Result<Vec<PeerReply>> {
        let mut replies = Vec::new();
        let mut accesses = accesses.peekable();
        let mut ahead = String::new();
        while accesses.peek().is_some() {
            ahead.clear();
            let mut count = 0;
            while let Some(access) = accesses.next_if(|_| ahead.len() < SENT_AHEAD) {
                writeln!(ahead, "{access}")?;
                count += 1;
            }
            self.qtest.send(&ahead)?;
            for _ in 0..count {
                let asserted = &mut self.asserted;
                let text = self.qtest.reply(|change| follow(asserted, change))?;
                replies.push(PeerReply { text, asserted: self.asserted });
            }
        }
        Ok(replies)
    }

    fn acknowledge(&mut self, cpus: Range<u16>) -> Result<Vec<Vec<Acknowledged>>> {
        ensure!(self.world != World::Stopped, "QEMU's CPUs are stopped");
        let begin = |cpu| Access::Store { at: mailbox(cpu), width: Width::Word, value: 1 };
        self.replies(&mut cpus.clone().map(begin))?;
        // CPUs that wait keep one of the host's CPUs busy, so they are started only now.
        self.order("cont")?;
        let acknowledged = cpus.map(|cpu| self.acknowledged(cpu)).collect();
        self.order("stop")?;
        acknowledged
    }

    fn asserted(&mut self) -> Asserted {
        self.asserted
    }

    fn watch(&self) -> Watch {
        self.watch
    }
}

/// Updates the inputs by a change that QEMU reports.
fn follow(asserted: &mut Asserted, change: &str) {
    if let Some((what, Ok(number @ 0..32))) =
        change.split_once(' ').map(|(what, number)| (what, number.parse::<u32>()))
    {
        match what {
            "raise" => asserted.0 |= 1 << number,
            _ => asserted.0 &= !(1 << number),
        }
    }
}
