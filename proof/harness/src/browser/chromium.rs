//! Chromium and its WebDriver, unpacked from Debian's packages.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::apt::{self, Suite};
use crate::dtb::Tools;
use crate::workspace::Workspace;

const PACKAGES: [&str; 3] = ["chromium", "chromium-driver", "fonts-dejavu-core"];
/// Path of the Fontconfig configuration in the packages' folder.
pub(super) const FONTS: &str = "fonts.conf";
/// Path of the browser in that folder: the executable, not the script that starts it on a desktop.
pub(super) const BROWSER: &str = "usr/lib/chromium/chromium";

/// Unpacks the packages into the cache.
pub fn fetch(workspace: &Workspace) -> Result<Tools> {
    let suite = Suite::Stable;
    let folder = apt::cached(workspace, suite, "chromium", |apt, folder| {
        apt.unpack_with_needs(&PACKAGES, suite, folder)?;
        fs::write(folder.join(FONTS), fonts(folder)).map_err(Into::into)
    });
    folder.map(Tools::at)
}

/// Returns a configuration with the fonts of the package and of the machine.
fn fonts(folder: &Path) -> String {
    let folder = folder.display();
    let alias = |generic: &str, font: &str| {
        format!("<alias><family>{generic}</family><prefer><family>{font}</family></prefer></alias>")
    };
    let aliases = [
        alias("sans-serif", "DejaVu Sans"),
        alias("system-ui", "DejaVu Sans"),
        alias("monospace", "DejaVu Sans Mono"),
    ];
    format!(
        "<?xml version=\"1.0\"?>\n<fontconfig>\n<dir>{folder}/usr/share/fonts</dir>\n\
         <dir>/usr/share/fonts</dir>\n<cachedir>{folder}/fontconfig</cachedir>\n{}\n\
         </fontconfig>\n",
        aliases.join("\n")
    )
}
