//! Builds the monitor and the adapter. They are linked statically, because the machine has no
//! libraries.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use doorbell_harness::apt::{self, Apt, Suite};
use doorbell_harness::suite::OrAbsent;
use doorbell_harness::workspace::Workspace;
use doorbell_harness::{cache, process, toolchain};

const MANIFEST: &str = "adopters/alioth";
const TARGET: &str = "aarch64-unknown-linux-gnu";
/// Object files of the C library, and of GCC's library, at the beginning and end of a program.
const C_FILES: [&str; 3] = ["rcrt1.o", "crti.o", "crtn.o"];
const GCC_FILES: [&str; 2] = ["crtbeginS.o", "crtendS.o"];

/// Returns the program.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.target.join("adopters");
    let mut cargo = process::cargo(&workspace.root.join(MANIFEST));
    cargo.args(["rustc", "--release", "--locked", "--target", TARGET, "--target-dir"]);
    cargo.arg(&folder);
    toolchain::need_target(&workspace.root, TARGET).or_absent(TARGET)?;
    let libraries = Libraries::fetch(workspace).or_absent("the C library for arm64")?;
    cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "rust-lld");
    cargo.arg("--").args(libraries.link_arguments());
    let flags = "-C target-feature=+crt-static -C linker-flavor=ld.lld";
    process::must(cargo.env("RUSTFLAGS", flags))?;
    Ok(folder.join(TARGET).join("release/alioth-adopter"))
}

/// The folders of Debian's C library and GCC's library for arm64, unpacked in the cache.
struct Libraries {
    c: PathBuf,
    gcc: PathBuf,
}

impl Libraries {
    fn fetch(workspace: &Workspace) -> Result<Self> {
        let folder = apt::cached(workspace, Suite::Stable, "libc-arm64", |apt, folder| {
            let gcc = dependency(apt, "gcc-aarch64-linux-gnu", "gcc-")?;
            let library = dependency(apt, &gcc, "libgcc-")?;
            apt.unpack_with_needs(&["libc6-dev-arm64-cross", &library], Suite::Stable, folder)
        })?;
        let files = cache::files_below(&folder)?;
        let folder_of = |name: &str| {
            let file = files.iter().find(|file| file.file_name().is_some_and(|file| file == name));
            let folder = file.and_then(|file| file.parent()).map(Path::to_path_buf);
            folder.with_context(|| format!("Debian's packages contain no {name}"))
        };
        Ok(Self { c: folder_of("rcrt1.o")?, gcc: folder_of("libgcc_eh.a")? })
    }

    /// Returns the compiler's arguments that link a program without C tools. GCC would pass the
    /// same files.
    fn link_arguments(&self) -> Vec<String> {
        let folders = [&self.c, &self.gcc].map(|folder| format!("-L{}", folder.display()));
        let file = |folder: &Path, name| folder.join(name).display().to_string();
        let mut all = Vec::from(folders);
        all.extend(["-pie", "--no-dynamic-linker"].map(String::from));
        all.extend(C_FILES.map(|name| file(&self.c, name)));
        all.extend(GCC_FILES.map(|name| file(&self.gcc, name)));
        all.into_iter().flat_map(|word| ["-C".into(), format!("link-arg={word}")]).collect()
    }
}

/// Returns the first dependency of a package whose name starts with `prefix`.
fn dependency(apt: &Apt, package: &str, prefix: &str) -> Result<String> {
    let found = apt.dependencies(package)?.into_iter().find(|name| name.starts_with(prefix));
    found.with_context(|| format!("{package} does not depend on {prefix}*"))
}
