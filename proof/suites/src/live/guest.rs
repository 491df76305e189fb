//! A Debian release's kernel with the command, for QEMU's machines.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use doorbell_harness::initramfs::{self, Content, File};
use doorbell_harness::qemu::Version;
use doorbell_harness::suite::{OrAbsent, Shared};
use doorbell_harness::toolchain::{self, JUDGE_TARGET};
use doorbell_harness::workspace::{self, Workspace};
use doorbell_harness::{process, small_linux};

use super::console::Step;
use super::runtime;

const INIT: &str = include_str!("init.sh");

/// A kernel, its initramfs, and the folder for the files of the cases.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) kernel: PathBuf,
    pub(super) initramfs: PathBuf,
    pub(super) folder: PathBuf,
}

impl Guest {
    /// Builds the command, and packs the command and a Debian release's kernel modules into an
    /// initramfs.
    fn new(workspace: &Workspace, version: Version) -> Result<Self> {
        let program = program(workspace)?;
        let busybox = small_linux::fetch_busybox(workspace).or_absent("busybox")?;
        let packages = small_linux::fetch_with_modules(workspace, version.suite())
            .or_absent("Debian's kernel")?;
        let names = small_linux::pci_modules(version.suite());
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

    pub(super) fn get(version: Version) -> Result<&'static Self> {
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

pub(super) fn run(command: &mut Command) -> Result<()> {
    process::capture(command).map(drop)
}
