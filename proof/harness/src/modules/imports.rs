//! Finds the paths that a Rust file uses. The parser supports a subset of the language.

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

impl Imports {
    /// Adds those of another file.
    pub(super) fn extend(&mut self, other: Self) {
        self.names.extend(other.names);
        self.paths.extend(other.paths);
    }
}

/// A path, and the inline modules that contain it.
#[derive(Debug)]
pub(super) struct Mention {
    pub(super) within: Path,
    pub(super) path: Path,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Token<'a> {
    Word(&'a str),
    Separator,
    Other(char),
}

/// Reads code from which comments and strings have been removed. Test items are skipped.
pub(super) fn read(code: &str) -> Imports {
    let tokens = tokens(code);
    let mut reader = ImportReader {
        tokens: &tokens,
        at: 0,
        depth: 0,
        inline: Vec::new(),
        imports: Imports::default(),
    };
    while reader.at < tokens.len() {
        reader.step();
    }
    reader.imports
}

fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(next) = rest.chars().next() {
        let is_name = |c: char| c == '_' || c.is_alphanumeric();
        let length = if is_name(next) {
            let length = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            tokens.push(Token::Word(&rest[..length]));
            length
        } else if rest.starts_with("::") {
            tokens.push(Token::Separator);
            2
        } else {
            tokens.push(Token::Other(next));
            next.len_utf8()
        };
        rest = rest[length..].trim_start();
    }
    tokens
}

struct ImportReader<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
    depth: usize,
    /// The enclosing inline modules, with the depth of their contents.
    inline: Vec<(&'a str, usize)>,
    imports: Imports,
}

impl<'a> ImportReader<'a> {
    fn step(&mut self) {
        match (self.token(0), self.token(1), self.token(2)) {
            (Some(Token::Other('#')), _, _) if self.is_for_tests() => self.skip_item(),
            (Some(Token::Word("mod")), Some(Token::Word(name)), Some(Token::Other('{'))) => {
                self.inline.push((name, self.depth + 1));
                self.at += 2;
            }
            // The path in `pub(in path)` does not use the module that it names.
            (Some(Token::Word("pub")), Some(Token::Other('(')), Some(Token::Word("in"))) => {
                let path = self.tokens[self.at..].iter();
                self.at += path.take_while(|token| **token != Token::Other(')')).count();
            }
            (Some(Token::Word("use")), Some(Token::Word(_)), _) => self.import(),
            (Some(Token::Word(_)), Some(Token::Separator), Some(Token::Word(_))) => self.mention(),
            (Some(Token::Other('{')), _, _) => {
                self.depth += 1;
                self.at += 1;
            }
            (Some(Token::Other('}')), _, _) => self.close(),
            _ => self.at += 1,
        }
    }

    fn token(&self, ahead: usize) -> Option<Token<'a>> {
        self.tokens.get(self.at + ahead).copied()
    }

    /// Returns `true` if the next tokens are a `#[cfg(test)]` attribute, with or without further
    /// conditions.
    fn is_for_tests(&self) -> bool {
        use Token::{Other, Word};
        let rest = self.tokens.get(self.at..).unwrap_or_default();
        let all = [
            Other('#'),
            Other('['),
            Word("cfg"),
            Other('('),
            Word("all"),
            Other('('),
            Word("test"),
        ];
        let one = [Other('#'), Other('['), Word("cfg"), Other('('), Word("test")];
        rest.starts_with(&one) || rest.starts_with(&all)
    }

    /// Skips attributes and the item that follows them, up to its semicolon or closing brace.
    fn skip_item(&mut self) {
        let (mut braces, mut brackets) = (0_usize, 0_usize);
        while let Some(token) = self.token(0) {
            self.at += 1;
            match token {
                Token::Other('[' | '(') => brackets += 1,
                Token::Other(']' | ')') => brackets = brackets.saturating_sub(1),
                Token::Other('{') => braces += 1,
                Token::Other('}') if braces == 1 => return,
                Token::Other('}') => braces = braces.saturating_sub(1),
                Token::Other(';') if braces == 0 && brackets == 0 => return,
                _ => {}
            }
        }
    }

    fn close(&mut self) {
        if self.inline.last().is_some_and(|(_, depth)| *depth == self.depth) {
            self.inline.pop();
        }
        self.depth = self.depth.saturating_sub(1);
        self.at += 1;
    }

    fn within(&self) -> Path {
        self.inline.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    /// Reads an import. An import that is visible outside the module is a re-export, and not a
    /// dependency.
    fn import(&mut self) {
        let before = self.at.checked_sub(1).and_then(|at| self.tokens.get(at));
        let is_private = !matches!(before, Some(Token::Word("pub") | Token::Other(')')));
        self.at += 1;
        let mut found = Vec::new();
        self.tree(&Vec::new(), &mut found);
        for (name, path) in found {
            if is_private {
                self.imports.paths.push(Mention { within: self.within(), path: path.clone() });
            }
            self.imports.names.push((name, path));
        }
    }

    /// Reads a tree of imports up to its end: a semicolon, a comma or a closing brace.
    fn tree(&mut self, prefix: &Path, found: &mut Vec<(String, Path)>) {
        let mut path = prefix.clone();
        while let Some(token) = self.token(0) {
            match token {
                Token::Word("as") => {
                    if let Some(Token::Word(name)) = self.token(1) {
                        found.push((name.to_owned(), path));
                    }
                    self.at += 2;
                    return;
                }
                Token::Word("self") if !prefix.is_empty() => {}
                Token::Word(segment) => path.push(segment.to_owned()),
                Token::Other('*') => {
                    found.push(("*".to_owned(), path));
                    self.at += 1;
                    return;
                }
                Token::Other('{') => return self.group(&path, found),
                Token::Separator => {}
                Token::Other(_) => break,
            }
            self.at += 1;
        }
        found.extend(path.last().cloned().map(|name| (name, path)));
    }

    fn group(&mut self, prefix: &Path, found: &mut Vec<(String, Path)>) {
        self.at += 1;
        while let Some(token) = self.token(0) {
            match token {
                Token::Other('}') => {
                    self.at += 1;
                    return;
                }
                Token::Other(',') => self.at += 1,
                Token::Other(';') => return,
                _ => self.tree(prefix, found),
            }
        }
    }

    fn mention(&mut self) {
        let mut path = Vec::new();
        while let Some(Token::Word(segment)) = self.token(0) {
            path.push(segment.to_owned());
            self.at += 1;
            match (self.token(0), self.token(1)) {
                (Some(Token::Separator), Some(Token::Word(_))) => self.at += 1,
                _ => break,
            }
        }
        self.imports.paths.push(Mention { within: self.within(), path });
    }
}
