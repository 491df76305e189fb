//! Runs `doorbell live` in guests with Debian's kernels on QEMU, with faults in firmware and on the
//! kernel's command line. The command must find each fault, and must report the interrupts and
//! DeviceIDs that Linux uses.

#![forbid(unsafe_code)]

mod imx8mp;
mod runtime;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result};
use doorbell_harness::dtb::{Tools, Tree};
use doorbell_harness::initramfs::{self, Content, File};
use doorbell_harness::qemu::{self, PROGRAM, Version};
use doorbell_harness::suite::{self, Case, OrAbsent, Shared};
use doorbell_harness::toolchain::{self, JUDGE_TARGET};
use doorbell_harness::workspace::{self, Workspace};
use doorbell_harness::{process, small_linux};
use doorbell_suites::acpi::linux::mapped;
use doorbell_suites::fetched::{self, PREPARATION};
use doorbell_suites::live::{Console, Expected, Step};

/// Time after which a boot counts as hung. A boot takes 10 seconds, or more on a busy machine.
const LIMIT: Duration = Duration::from_mins(4);
const INIT: &str = include_str!("init.sh");
const COMMAND_LINE: &str = "console=ttyAMA0 loglevel=1 panic=-1";
/// With less memory, Linux 6.12 does not boot on UEFI firmware.
const MEMORY: &str = "1G";
const SURROUNDINGS: &[&str] = &[
    "-cpu",
    "cortex-a57",
    "-smp",
    "2",
    "-m",
    MEMORY,
    "-nodefaults",
    "-display",
    "none",
    "-serial",
    "stdio",
    "-no-reboot",
];
/// An entropy source below a root port, an NVMe controller on the root bus, and an entropy source
/// below a bridge to a conventional bus. That bridge replaces the requester ID of the entropy
/// source.
const DEVICES: &[&str] = &[
    "-device",
    "pcie-root-port,id=root,chassis=1,slot=1",
    "-device",
    "virtio-rng-pci,bus=root,disable-legacy=on",
    "-device",
    "nvme,drive=d0,serial=1",
    "-device",
    "pcie-pci-bridge,id=conventional",
    "-device",
    "virtio-rng-pci,bus=conventional,addr=3",
];
/// A switch with two functions below it, a device with two functions, and two root ports of one
/// device without Access Control Services, of which one has a function below it. (Linux's driver
/// for the SMMUv3 refuses a second function on a conventional bus, because both have one StreamID.)
const SHARED: &[&str] = &[
    "-device",
    "pcie-root-port,id=above,chassis=2,slot=2",
    "-device",
    "x3130-upstream,bus=above,id=switch",
    "-device",
    "xio3130-downstream,bus=switch,id=left,chassis=3,slot=3",
    "-device",
    "xio3130-downstream,bus=switch,id=right,chassis=4,slot=4",
    "-device",
    "e1000e,bus=left,romfile=",
    "-device",
    "e1000e,bus=right,romfile=",
    "-device",
    "qemu-xhci,addr=8.0,multifunction=on",
    "-device",
    "qemu-xhci,addr=8.1",
    "-device",
    "pcie-root-port,id=open,chassis=5,slot=5,addr=9.0,multifunction=on,disable-acs=on",
    "-device",
    "pcie-root-port,id=beside,chassis=6,slot=6,addr=9.1,disable-acs=on",
    "-device",
    "e1000e,bus=open,romfile=",
];
/// Functions without a root port, which QEMU refuses on a machine without an MSI controller.
const ENDPOINTS: &[&str] =
    &["-device", "nvme,drive=d0,serial=1", "-device", "virtio-rng-pci,disable-legacy=on"];
/// Word on the command line that makes the guest print its functions' groups.
const GROUPS: &str = "groups";
/// Word on the command line that makes the guest change itself in [`runtime::STEPS`].
const STEPS: &str = "steps";
/// Word on the command line that makes Linux read ACPI tables, which UEFI firmware provides.
const ACPI: &str = "acpi=force";
const GICV3: &str = "gic-version=3";
const GICV2: &str = "gic-version=2";
const SMMU: &str = "gic-version=3,iommu=smmuv3";
const HOST: &str = "/pcie@10000000";
const ITS: &str = "/intc@8000000/its@8080000";

/// Change of a property of a devicetree node.
#[derive(Clone, Copy, Debug)]
enum Change {
    None,
    /// Limits the only entry of a map in the host bridge's node to this number of requesters.
    Shorten(&'static str, u32),
    /// Replaces the entries of `msi-map` in the host bridge's node: the first requester, its
    /// DeviceID, and the number of requesters.
    Map(&'static [[u32; 3]]),
    /// Adds properties with one cell to a node.
    Add(&'static str, &'static [(&'static str, u32)]),
    /// Disables a node.
    Disable(&'static str),
    /// Moves the registers of a node to this address below 4 GiB.
    Move(&'static str, u32),
}

/// Expands to all functions with a driver, each with the same obstacle.
macro_rules! all {
    ($obstacle:literal) => {
        &[
            ("0000:00:01.0", $obstacle),
            ("0000:00:02.0", $obstacle),
            ("0000:00:03.0", $obstacle),
            ("0000:01:00.0", $obstacle),
            ("0000:02:03.0", $obstacle),
        ]
    };
}
/// Machine with a planted fault, and the expected results of the command.
#[derive(Clone, Copy, Debug)]
struct Subject {
    name: &'static str,
    /// Versions on which the long run tries the machine. The ordinary run tries one of them.
    versions: &'static [Version],
    machine: &'static str,
    change: Change,
    options: &'static str,
    devices: &'static [&'static [&'static str]],
    /// Function that the command must explain.
    explained: &'static str,
    expected: Expected,
}

const STABLE: &[Version] = &[Version::Stable];

const SOUND: Subject = Subject {
    name: "a sound machine",
    versions: &Version::ALL,
    machine: GICV3,
    change: Change::None,
    options: "",
    devices: &[DEVICES],
    explained: "0000:01:00.0",
    expected: Expected {
        faults: &[],
        differences: &[],
        line: "translation: the device has DeviceID 0x100",
        silent: false,
    },
};

/// A machine on which no message arrives.
const SILENT: Subject = Subject {
    versions: STABLE,
    options: "silent",
    expected: Expected {
        line: "no message of any function has arrived: firmware may state wrong DeviceIDs, or \
               ranges that the",
        silent: true,
        ..SOUND.expected
    },
    ..SOUND
};

const SUBJECTS: &[Subject] = &[
    SOUND,
    Subject { name: "a sound machine with an SMMU", versions: STABLE, machine: SMMU, ..SOUND },
    Subject {
        name: "a machine with shared buses and devices",
        versions: STABLE,
        machine: SMMU,
        options: GROUPS,
        devices: &[DEVICES, SHARED],
        ..SOUND
    },
    Subject {
        name: "a sound machine with GICv2m frames",
        versions: STABLE,
        machine: GICV2,
        expected: Expected {
            line: "doorbell: a controller receives messages at 0x8020040",
            ..SOUND.expected
        },
        ..SOUND
    },
    Subject {
        name: "a machine that is changed while it runs",
        versions: &Version::ALL,
        machine: SMMU,
        options: STEPS,
        devices: &[DEVICES, runtime::MORE],
        ..SOUND
    },
    Subject {
        name: "ACPI tables with an ITS and an SMMU",
        versions: &[Version::Backports],
        machine: SMMU,
        options: "acpi=force kvm-arm.mode=none",
        expected: Expected { line: "firmware: requester 0x0100: MADT/ITS@0", ..SOUND.expected },
        ..SOUND
    },
    Subject {
        name: "ACPI tables with a GICv2m frame",
        versions: STABLE,
        machine: GICV2,
        options: ACPI,
        expected: Expected {
            line: "firmware: requester 0x0100: MADT/MSI-frame@0",
            ..SOUND.expected
        },
        ..SOUND
    },
    Subject {
        name: "a machine without an MSI controller",
        versions: STABLE,
        machine: "gic-version=3,its=off",
        devices: &[ENDPOINTS],
        explained: "0000:00:02.0",
        expected: Expected {
            line: "firmware: requester 0x0010: firmware names no MSI controller for the requester",
            ..SOUND.expected
        },
        ..SOUND
    },
    Subject {
        name: "a map without some requesters",
        change: Change::Shorten("msi-map", 0x10),
        // Linux uses the ITS for 01:00.0, because the map contains the root port above this
        // function.
        expected: Expected {
            faults: &[
                ("0000:00:02.0", r#"{ "setup": { "outside-map": { "requester": 16 } } }"#),
                ("0000:00:03.0", r#"{ "setup": { "outside-map": { "requester": 24 } } }"#),
                ("0000:02:03.0", r#"{ "setup": { "outside-map": { "requester": 512 } } }"#),
            ],
            differences: &["0000:01:00.0"],
            ..SOUND.expected
        },
        ..SOUND
    },
    Subject {
        name: "pci=nomsi",
        versions: STABLE,
        options: "pci=nomsi",
        expected: Expected {
            faults: all!(r#"{ "setup": "turned-off" }"#),
            line: "endpoint: the kernel's command line disables MSI and MSI-X",
            ..SOUND.expected
        },
        ..SOUND
    },
    Subject {
        name: "a disabled ITS",
        versions: STABLE,
        change: Change::Disable(ITS),
        expected: Expected {
            faults: all!(r#"{ "setup": "controller-disabled" }"#),
            line: "doorbell: firmware disables the MSI controller that it names for the function",
            ..SOUND.expected
        },
        ..SOUND
    },
    Subject {
        name: "an ITS at another address",
        versions: STABLE,
        // In QEMU's memory map, this address is in the second half of the flash memory.
        change: Change::Move(ITS, 0x400_0000),
        expected: Expected {
            faults: all!(r#"{ "setup": "controller-unused" }"#),
            line: "INTx, which Linux uses instead:",
            ..SOUND.expected
        },
        ..SOUND
    },
    Subject {
        name: "an SMMU whose map omits two buses",
        machine: SMMU,
        change: Change::Shorten("iommu-map", 0x100),
        options: "silent",
        expected: Expected {
            faults: &[
                ("0000:01:00.0", r#"{ "setup": { "no-stream": { "requester": 256 } } }"#),
                ("0000:02:03.0", r#"{ "setup": { "no-stream": { "requester": 512 } } }"#),
            ],
            line: "firmware: requester 0x0100: /intc@8000000/its@8080000",
            ..SOUND.expected
        },
        ..SOUND
    },
    Subject {
        name: "a disabled SMMU",
        versions: STABLE,
        machine: SMMU,
        change: Change::Disable("/smmuv3@9050000"),
        ..SOUND
    },
    Subject {
        name: "an SMMU that passes DMA through, with an offline CPU",
        versions: STABLE,
        machine: SMMU,
        options: "iommu.passthrough=1 offline",
        ..SOUND
    },
    Subject {
        name: "CPUs that never came online",
        versions: STABLE,
        options: "maxcpus=1",
        ..SOUND
    },
    Subject {
        name: "irqchip.gicv3_nolpi=1",
        versions: STABLE,
        options: "irqchip.gicv3_nolpi=1",
        expected: Expected {
            faults: all!(r#"{ "setup": "lpis-turned-off" }"#),
            line: "endpoint: the kernel's command line disables LPIs, and with them the ITS",
            ..SOUND.expected
        },
        ..SOUND
    },
    Subject {
        name: "wrong DeviceIDs of two buses",
        change: Change::Map(&[[0, 0, 0x100], [0x100, 0x108, 0xff00]]),
        expected: Expected {
            line: "note: no message of 0000:01:00.0, the only sender on bus 0000:01, has arrived, \
                   but messages of other",
            ..SOUND.expected
        },
        ..SILENT
    },
    Subject { name: "wrong DeviceIDs", change: Change::Map(&[[0, 8, 0xfff8]]), ..SILENT },
    Subject {
        name: "DeviceIDs that the ITS does not implement",
        change: Change::Map(&[[0, 0x1_0000, 0x1_0000]]),
        ..SILENT
    },
    Subject {
        name: "DeviceIDs beyond the ITS's device table",
        versions: STABLE,
        change: Change::Map(&[[0, 0x0800_0000, 0x1_0000]]),
        expected: Expected {
            faults: &[
                (
                    "0000:00:01.0",
                    r#"{ "setup": { "beyond-table": { "device": 134217736, "room": 67108864 } } }"#,
                ),
                (
                    "0000:00:02.0",
                    r#"{ "setup": { "beyond-table": { "device": 134217744, "room": 67108864 } } }"#,
                ),
                (
                    "0000:00:03.0",
                    r#"{ "setup": { "beyond-table": { "device": 134217752, "room": 67108864 } } }"#,
                ),
                (
                    "0000:01:00.0",
                    r#"{ "setup": { "beyond-table": { "device": 134217984, "room": 67108864 } } }"#,
                ),
                (
                    "0000:02:03.0",
                    r#"{ "setup": { "beyond-table": { "device": 134218240, "room": 67108864 } } }"#,
                ),
            ],
            line: "translation: the ITS's device table has 0x4000000 entries, and firmware states \
                   DeviceID 0x8000100",
            ..SOUND.expected
        },
        ..SOUND
    },
    Subject {
        name: "SPIs that the GICv2m frame does not have",
        machine: GICV2,
        change: Change::Add(
            "/intc@8000000/v2m@8020000",
            &[("arm,msi-base-spi", 160), ("arm,msi-num-spis", 64)],
        ),
        ..SILENT
    },
];

fn main() -> ExitCode {
    let cases = SUBJECTS.iter().enumerate().flat_map(|(index, subject)| {
        let versions = match subject.versions {
            all if suite::is_long() => all,
            all => &all[index % all.len()..][..1],
        };
        versions.iter().map(move |&version| {
            let name = format!("{version:?}'s kernel on {}", subject.name);
            Case::new(name, PREPARATION + LIMIT, move || subject.judge(version))
        })
    });
    let board =
        Case::new("Backports's kernel on an i.MX 8M Plus", PREPARATION + LIMIT, imx8mp::judge);
    suite::main(cases.chain([board]).collect())
}

/// A kernel, its initramfs, and the folder for the files of the cases.
#[derive(Debug)]
struct Guest {
    kernel: PathBuf,
    initramfs: PathBuf,
    folder: PathBuf,
}

impl Guest {
    /// Builds the command, and packs the command and a Debian release's kernel modules into an
    /// initramfs.
    fn new(workspace: &Workspace, version: Version) -> Result<Self> {
        let program = program(workspace)?;
        let busybox = small_linux::fetch_busybox(workspace).or_absent("busybox")?;
        let packages = small_linux::fetch_with_modules(workspace, version.suite())
            .or_absent("Debian's kernel")?;
        let suite = version.suite();
        let names = [small_linux::imx8mp_modules(suite), small_linux::pci_modules(suite)].concat();
        let modules = small_linux::modules(&packages, &names)?;
        let mut files = small_linux::first_files(&busybox, INIT, modules)?;
        let more = small_linux::e1000e_and_vfio_modules(version.suite());
        files.extend(small_linux::modules(&packages, &more)?);
        let step = |step: &Step| format!("{}\nstep {}\n", step.commands, step.function);
        let steps: String = runtime::STEPS.iter().map(step).collect();
        for (path, bytes) in [
            ("doorbell", fs::read(program)?),
            ("more", more.join("\n").into()),
            ("steps", steps.into()),
        ] {
            files.push(File { path, content: Content::Program(bytes) });
        }
        let folder = workspace.target.join("live").join(format!("{version:?}").to_lowercase());
        fs::create_dir_all(&folder)?;
        let initramfs = folder.join("initramfs");
        fs::write(&initramfs, initramfs::pack(&files))?;
        fs::write(folder.join("disk"), vec![0; 1 << 20])?;
        Ok(Self { kernel: small_linux::kernel(&packages)?, initramfs, folder })
    }

    fn get(version: Version) -> Result<&'static Self> {
        static GUESTS: [Shared<Guest>; 2] = [const { Shared::new() }; 2];
        let guest = &GUESTS[usize::from(version == Version::Backports)];
        guest.get(|| Self::new(workspace::this()?, version))
    }
}

/// Builds the command for arm64, once.
fn program(workspace: &Workspace) -> Result<&'static Path> {
    static PROGRAM: Shared<PathBuf> = Shared::new();
    let built = PROGRAM.get(|| {
        toolchain::need_target(&workspace.root, JUDGE_TARGET).or_absent(JUDGE_TARGET)?;
        // The command reads files once, so building it costs more than running it.
        small_linux::build_program(workspace, "doorbell", 0)
    });
    built.map(PathBuf::as_path)
}

/// Returns the devicetree compiler and its tools.
fn compiler() -> Result<&'static Tools> {
    static TOOLS: Shared<Tools> = Shared::new();
    TOOLS.get(|| {
        let workspace = workspace::this()?;
        Tree::Qemu.fetched(workspace)?;
        Ok(Tools::of(workspace))
    })
}

impl Subject {
    fn judge(&self, version: Version) -> Result<()> {
        let guest = Guest::get(version)?;
        let stem = guest.folder.join(self.name.replace(' ', "-"));
        let mut qemu = fetched::qemu(version)?.command(PROGRAM);
        qemu.args(SURROUNDINGS).args(self.devices.concat());
        let disk = guest.folder.join("disk");
        qemu.args(qemu::drives(&disk)).arg("-kernel").arg(&guest.kernel);
        qemu.arg("-initrd").arg(&guest.initramfs);
        let (explained, options) = (self.explained, self.options);
        qemu.arg("-append").arg(format!("{COMMAND_LINE} explained={explained} {options}"));
        if options.contains(ACPI) {
            qemu.arg("-bios").arg(fetched::uefi()?);
        }
        let trace = stem.with_extension("trace");
        qemu.args(["-trace", "gicv3_its_cmd_mapd", "-D"]).arg(&trace);
        if let Some(blob) = self.change(version, &stem.with_extension("dtb"))? {
            qemu.arg("-dtb").arg(blob);
        }
        qemu.args(["-M", &format!("virt,{}", self.machine)]);
        let mut console = Console::default();
        process::watch(&mut qemu, LIMIT, |line| console.line(line))
            .with_context(|| format!("the last line is `{}`", console.last))?;
        let mapped: BTreeSet<_> = fs::read_to_string(&trace)?.lines().filter_map(mapped).collect();
        let has_its = self.machine != GICV2;
        console.judge(has_its.then_some(&mapped), &self.expected)?;
        if self.options == STEPS {
            console.judge_steps(runtime::STEPS)?;
        }
        if self.options == GROUPS {
            let groups = console.judge_groups()?;
            eprintln!("{}: {groups} groups, as Linux makes them", self.name);
        }
        eprintln!("{}: Linux maps {mapped:x?}, as the command shows", self.name);
        Ok(())
    }

    /// Writes the machine's devicetree with the fault to `file`. Returns `None` if the devicetree
    /// has no fault.
    fn change<'f>(&self, version: Version, file: &'f Path) -> Result<Option<&'f Path>> {
        if matches!(self.change, Change::None) {
            return Ok(None);
        }
        let mut qemu = fetched::qemu(version)?.command(PROGRAM);
        qemu.args(["-display", "none", "-nic", "none", "-cpu", "cortex-a57", "-smp", "2"]);
        qemu.args(["-m", MEMORY, "-M"]);
        qemu.arg(format!("virt,{},dumpdtb={}", self.machine, file.display()));
        process::capture(&mut qemu)?;
        let put = |kind: &str| {
            let mut put = compiler()?.command("fdtput");
            put.args(["-t", kind]).arg(file);
            anyhow::Ok(put)
        };
        match self.change {
            Change::None => {}
            Change::Shorten(map, length) => {
                let mut get = compiler()?.command("fdtget");
                let cells = process::capture(get.args(["-t", "x"]).arg(file).args([HOST, map]))?;
                let mut cells: Vec<_> = cells.split_whitespace().map(str::to_owned).collect();
                *cells.get_mut(3).context("a map has four cells")? = format!("{length:x}");
                run(put("x")?.args([HOST, map]).args(cells))?;
            }
            Change::Map(entries) => {
                let mut get = compiler()?.command("fdtget");
                let get = get.args(["-t", "x"]).arg(file).args([HOST, "msi-map"]);
                let cells = process::capture(get)?;
                let its = cells.split_whitespace().nth(1).context("a map has four cells")?;
                let cells = entries.iter().flat_map(|[first, id, length]| {
                    [format!("{first:x}"), its.to_owned(), format!("{id:x}"), format!("{length:x}")]
                });
                run(put("x")?.args([HOST, "msi-map"]).args(cells))?;
            }
            Change::Add(node, properties) => {
                for (property, value) in properties {
                    run(put("u")?.args([node, property, &*value.to_string()]))?;
                }
            }
            Change::Disable(node) => run(put("s")?.args([node, "status", "disabled"]))?,
            Change::Move(node, base) => {
                run(put("x")?.args([node, "reg", "0", &format!("{base:x}"), "0", "20000"]))?;
            }
        }
        Ok(Some(file))
    }
}

fn run(command: &mut Command) -> Result<()> {
    process::capture(command).map(drop)
}
