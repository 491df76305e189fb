//! A package's files as a graph. An edge points from each file to every file whose items it uses.
//!
//! Module declarations and re-exports are not edges. A re-exported name refers to the file that
//! defines it.

mod imports;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result};

use self::imports::{Imports, Path};
use crate::workspace::Package;

/// Maximum number of re-exports that are followed for a name.
const MOST_STEPS: usize = 8;

/// Returns the sets of files in a package that depend on each other, and likewise the sets of
/// modules. A child module is considered together with all modules below it.
///
/// # Errors
/// Fails if a source file cannot be read.
pub fn circles(package: &Package) -> Result<Vec<Vec<String>>> {
    let folder = package.folder.join("src");
    let mut sources = Vec::new();
    for file in package.rust_files()? {
        if let Ok(below) = file.strip_prefix(&folder) {
            sources.push((below.display().to_string(), fs::read_to_string(&file)?));
        }
    }
    Ok(Graph::new(&sources)?.circles())
}

/// The modules with a separate file, by path; the root has the empty path.
struct Graph {
    files: BTreeMap<Path, (String, Imports)>,
}

impl Graph {
    fn new(sources: &[(String, String)]) -> Result<Self> {
        let product =
            sources.iter().filter(|(file, _)| !file.split(['/', '.']).any(|part| part == "tests"));
        let mut files = BTreeMap::<Path, (String, Imports)>::new();
        for (file, text) in product {
            let imports = imports::read(text).with_context(|| file.clone())?;
            match files.entry(module_of(file)) {
                Entry::Vacant(place) => _ = place.insert((file.clone(), imports)),
                // A library and a program in one package have a root each, but share the other
                // modules' paths.
                Entry::Occupied(mut root) => root.get_mut().1.extend(imports),
            }
        }
        Ok(Self { files })
    }

    /// Returns the files that depend on each other, and the sibling modules that do although none
    /// of their files do.
    fn circles(&self) -> Vec<Vec<String>> {
        let files = self.connected(|module| Some(module.clone()));
        let name = |module: &Path| self.files.get(module).map(|(file, _)| file.clone());
        let mut circles: Vec<_> =
            files.iter().map(|circle| circle.iter().filter_map(name).collect()).collect();
        for parent in self.files.keys() {
            let modules = self.connected(|module| {
                let is_below = module.len() > parent.len() && module.starts_with(parent);
                is_below.then(|| module[..=parent.len()].to_vec())
            });
            let names = |circle: &Vec<Path>| circle.iter().map(|it| it.join("::")).collect();
            circles.extend(modules.difference(&files).map(names));
        }
        circles
    }

    /// Returns the sets of two or more nodes that reach each other. `node` maps modules to nodes.
    fn connected(&self, node: impl Fn(&Path) -> Option<Path>) -> BTreeSet<Vec<Path>> {
        let mut arrows = BTreeMap::<Path, BTreeSet<Path>>::new();
        for (module, from) in self.files.keys().filter_map(|it| Some((it, node(it)?))) {
            arrows.entry(from).or_default().extend(self.arrows(module).iter().filter_map(&node));
        }
        let reached = |from| (from, reach(&arrows, from));
        let reached: BTreeMap<_, _> = arrows.keys().map(reached).collect();
        let circle = |from: &Path| {
            let both = reached[from].iter().filter(|to| reached[*to].contains(from));
            both.cloned().collect::<Vec<_>>()
        };
        arrows.keys().map(circle).filter(|circle| circle.len() > 1).collect()
    }

    fn arrows(&self, module: &Path) -> BTreeSet<Path> {
        let Some((_, imports)) = self.files.get(module) else { return BTreeSet::new() };
        let targets = imports.paths.iter().filter_map(|mention| {
            let inner: Path = module.iter().chain(&mention.within).cloned().collect();
            self.resolve(&inner, module, &mention.path, MOST_STEPS)
        });
        targets.filter(|target| target != module).collect()
    }

    /// Returns the module whose file defines the item that `path` names in `inner`, a module in the
    /// file of `module`.
    fn resolve(&self, inner: &Path, module: &Path, path: &[String], steps: usize) -> Option<Path> {
        let absolute = self.absolute(inner, module, path)?;
        let known = (0..=absolute.len())
            .rev()
            .find(|length| self.files.contains_key(&absolute[..*length]))?;
        let (owner, rest) = absolute.split_at(known);
        let owner = owner.to_vec();
        let Some((item, below)) = rest.split_first() else { return Some(owner) };
        let imported = self.files.get(&owner)?.1.names.iter().find(|(name, _)| name == item);
        let origin = imported.filter(|_| steps > 0).and_then(|(_, origin)| {
            let path: Vec<_> = origin.iter().chain(below).cloned().collect();
            self.resolve(&owner, &owner, &path, steps - 1)
        });
        Some(origin.unwrap_or(owner))
    }

    /// Returns the path that `name` and `rest` refer to if the file imports a module of the package
    /// as `name`.
    fn imported(&self, module: &Path, name: &str, rest: &[String]) -> Option<Path> {
        let names = &self.files.get(module)?.1.names;
        let (_, origin) = names.iter().find(|(known, path)| known == name && is_local(path))?;
        Some(origin.iter().chain(rest).cloned().collect())
    }

    /// Returns the path relative to the package's root, or `None` if it starts outside the package.
    fn absolute(&self, inner: &Path, module: &Path, path: &[String]) -> Option<Path> {
        let (first, rest) = path.split_first()?;
        let mut start = match first.as_str() {
            "crate" => Vec::new(),
            "self" | "super" => inner.clone(),
            name => {
                let child: Path = module.iter().cloned().chain([name.to_owned()]).collect();
                if !self.files.contains_key(&child) {
                    return self.absolute(inner, module, &self.imported(module, name, rest)?);
                }
                module.clone()
            }
        };
        let rest = match first.as_str() {
            "crate" | "self" => rest,
            _ => path,
        };
        let supers = rest.iter().take_while(|segment| *segment == "super").count();
        start.truncate(start.len().checked_sub(supers)?);
        start.extend(rest.iter().skip(supers).cloned());
        Some(start)
    }
}

/// Returns the nodes that can be reached from a node by one or more edges.
fn reach(arrows: &BTreeMap<Path, BTreeSet<Path>>, node: &Path) -> BTreeSet<Path> {
    let mut reached = BTreeSet::new();
    let mut pending = vec![node];
    while let Some(next) = pending.pop() {
        for target in arrows.get(next).into_iter().flatten() {
            if reached.insert(target.clone()) {
                pending.push(target);
            }
        }
    }
    reached
}

/// Returns `true` if the path starts in the package.
fn is_local(path: &Path) -> bool {
    path.first().is_some_and(|first| matches!(first.as_str(), "crate" | "self" | "super"))
}

fn module_of(file: &str) -> Path {
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    let stem = stem.strip_suffix("/mod").unwrap_or(stem);
    if matches!(stem, "lib" | "main") {
        Vec::new()
    } else {
        stem.split('/').map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let sources: Vec<_> =
            files.iter().map(|(file, text)| ((*file).into(), (*text).into())).collect();
        Graph::new(&sources).unwrap().circles()
    }

    #[test]
    fn a_binary_next_to_a_library_does_not_hide_a_cycle() {
        let library = [
            ("lib.rs", "mod a; mod b; pub use a::A; pub use b::B;"),
            ("a.rs", "use crate::B; pub struct A;"),
            ("b.rs", "use crate::A; pub struct B;"),
        ];
        let both: Vec<_> =
            library.into_iter().chain([("main.rs", "mod c; fn main() {}")]).collect();
        assert_eq!((circles(&library).len(), circles(&both).len()), (1, 1));
    }

    #[test]
    fn files_that_import_each_other_form_a_cycle() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::{b::{self, x::{B as D, *}}};"),
            ("b.rs", "use super::c::C;\n#[cfg(test)]\nmod tests { use crate::b::d; }"),
            ("c.rs", "pub(in crate::b) fn f(_: crate::a::A) {}"),
        ];
        assert_eq!(circles(&files), [["a.rs", "b.rs", "c.rs"]]);
        assert!(circles(&files[..3]).is_empty());
    }

    #[test]
    fn a_reexport_resolves_to_its_origin() {
        let files = [
            ("lib.rs", "mod a; mod b; pub use a::A;"),
            ("a.rs", "use crate::b::B;"),
            ("b.rs", "use crate::A;"),
        ];
        assert_eq!(circles(&files), [["a.rs", "b.rs"]]);
    }

    #[test]
    fn modules_that_import_each_other_form_a_cycle() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "mod x; mod y;"),
            ("a/x.rs", "use crate::b::u::U;"),
            ("a/y.rs", ""),
            ("b.rs", "mod u; mod v;"),
            ("b/u.rs", ""),
            ("b/v.rs", "use crate::a::y::Y;"),
        ];
        assert_eq!(circles(&files), [["a", "b"]]);
        assert!(circles(&files[..6]).is_empty());
    }
}
