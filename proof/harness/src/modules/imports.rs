//! Finds the paths that a Rust file uses, in its tokens. Unlike a syntax tree, they include those
//! inside of macros' arguments.

use anyhow::{Result, format_err};
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// Segments of a path.
pub(super) type Path = Vec<String>;

/// The modules that a file declares, its imports, and the paths in its code.
#[derive(Debug, Default)]
pub(super) struct Imports {
    /// Names that the file imports, with their paths; a glob import has the name `*`.
    pub(super) names: Vec<(String, Path)>,
    /// Paths that the file depends on, relative to the module `within` it.
    pub(super) paths: Vec<Mention>,
}

/// A path, and the inline modules that contain it.
#[derive(Debug)]
pub(super) struct Mention {
    pub(super) within: Path,
    pub(super) path: Path,
}

/// Reads a file. Test items are skipped.
pub(super) fn read(text: &str) -> Result<Imports> {
    let tokens: TokenStream = text.parse().map_err(|error| format_err!("{error}"))?;
    let mut imports = Imports::default();
    imports.walk(tokens, &Path::new());
    Ok(imports)
}

impl Imports {
    /// Adds those of another file.
    pub(super) fn extend(&mut self, other: Self) {
        self.names.extend(other.names);
        self.paths.extend(other.paths);
    }

    /// Reads the tokens of an inline module, or of the file.
    fn walk(&mut self, tokens: TokenStream, within: &Path) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut rest = tokens.as_slice();
        while let [first, after @ ..] = rest {
            rest = match (word(first).as_str(), after) {
                ("#", [TokenTree::Group(attribute), ..]) if is_for_tests(attribute) => {
                    after_item(after)
                }
                ("mod", [name, TokenTree::Group(body), after @ ..]) => {
                    let inside: Path = within.iter().cloned().chain([word(name)]).collect();
                    self.walk(body.stream(), &inside);
                    after
                }
                // The path in `pub(in path)` does not use the module that it names. An import that
                // is visible outside the module is a re-export, and not a dependency.
                ("pub", [TokenTree::Group(scope), after @ ..]) if is_scope(scope) => {
                    self.reexport(after)
                }
                ("pub", _) => self.reexport(after),
                ("use", [TokenTree::Ident(_), ..]) => {
                    let (found, after) = import(after);
                    let mention = |(_, path): &(_, Path)| Mention {
                        within: within.clone(),
                        path: path.clone(),
                    };
                    self.paths.extend(found.iter().map(mention));
                    self.names.extend(found);
                    after
                }
                _ => self.mention(rest, within),
            };
        }
    }

    fn reexport<'t>(&mut self, rest: &'t [TokenTree]) -> &'t [TokenTree] {
        match rest {
            [first, after @ ..] if word(first) == "use" => {
                let (found, after) = import(after);
                self.names.extend(found);
                after
            }
            _ => rest,
        }
    }

    /// Reads a path of two or more segments, a group, or another token.
    fn mention<'t>(&mut self, mut rest: &'t [TokenTree], within: &Path) -> &'t [TokenTree] {
        let mut path = Path::new();
        while let [TokenTree::Ident(segment), one, other, after @ ..] = rest
            && [word(one), word(other)] == [":", ":"]
            && let [TokenTree::Ident(_), ..] = after
        {
            path.push(segment.to_string());
            rest = after;
        }
        let [last, after @ ..] = rest else { return rest };
        if let TokenTree::Group(group) = last {
            self.walk(group.stream(), within);
        } else if !path.is_empty() {
            path.push(word(last));
            self.paths.push(Mention { within: within.clone(), path });
        }
        after
    }
}

/// Returns the imports up to a semicolon, and the tokens after it.
fn import(tokens: &[TokenTree]) -> (Vec<(String, Path)>, &[TokenTree]) {
    let end = tokens.iter().position(|token| word(token) == ";").unwrap_or(tokens.len());
    let mut found = Vec::new();
    trees(&tokens[..end], &Path::new(), &mut found);
    (found, &tokens[end..])
}

/// Reads trees of imports, which commas separate.
fn trees(tokens: &[TokenTree], prefix: &Path, found: &mut Vec<(String, Path)>) {
    for tree in tokens.split(|token| word(token) == ",").filter(|tree| !tree.is_empty()) {
        let (path, alias) = match tree.iter().position(|token| word(token) == "as") {
            Some(at) => (&tree[..at], tree.get(at + 1).map(word)),
            None => (tree, None),
        };
        let is_first = prefix.is_empty();
        let is_segment = |token: &&TokenTree| matches!(token, TokenTree::Ident(name) if is_first || *name != "self");
        let segments = path.iter().filter(is_segment).map(word);
        let whole: Path = prefix.iter().cloned().chain(segments).collect();
        match path.last() {
            Some(TokenTree::Group(group)) => {
                trees(&group.stream().into_iter().collect::<Vec<_>>(), &whole, found);
            }
            Some(last) if word(last) == "*" => found.push(("*".to_owned(), whole)),
            _ => found.extend(alias.or_else(|| whole.last().cloned()).map(|name| (name, whole))),
        }
    }
}

/// Returns a token as text; a group is no word.
fn word(token: &TokenTree) -> String {
    if let TokenTree::Group(_) = token { String::new() } else { token.to_string() }
}

/// Returns `true` for the scope in `pub(crate)`, unlike the type in `pub (A, B)`.
fn is_scope(group: &Group) -> bool {
    let first = group.stream().into_iter().next().map(|token| word(&token));
    let is_word = ["crate", "in", "self", "super"].iter().any(|it| first.as_deref() == Some(it));
    group.delimiter() == Delimiter::Parenthesis && is_word
}

/// Returns `true` for a `cfg(test)` attribute, with or without further conditions.
fn is_for_tests(attribute: &Group) -> bool {
    let text = attribute.stream().to_string().replace(' ', "");
    text.starts_with("cfg(test") || text.starts_with("cfg(all(test")
}

/// Returns the tokens after an item with its attributes, which ends with a semicolon or a block.
fn after_item(tokens: &[TokenTree]) -> &[TokenTree] {
    let is_end = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        other => word(other) == ";",
    };
    let end = tokens.iter().position(is_end).map_or(tokens.len(), |end| end + 1);
    &tokens[end..]
}
