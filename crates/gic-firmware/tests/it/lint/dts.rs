//! A compiler for the subset of devicetree source in the rules' examples: nodes, labels, cells,
//! strings, references, and changes to the nodes of earlier sources.

use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use std::collections::BTreeMap;

/// Compiles the sources in order. Each source may change the tree that the earlier sources define.
pub(crate) fn compile(sources: &[&str]) -> Vec<u8> {
    let mut tree = Source::default();
    for source in sources {
        let mut tokens = tokens(source).into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token.as_str() {
                "/dts-v1/" => assert_eq!(tokens.next().as_deref(), Some(";")),
                "/" => tree.body(&[], &mut tokens),
                "/delete-node/" => {
                    let label = tokens.next().expect("a reference");
                    let path = tree.labels.remove(label.trim_start_matches('&'));
                    let path = path.expect("a known label");
                    let (name, above) = path.split_last().expect("a node");
                    tree.node(above).children.retain(|(known, _)| known != name);
                    assert_eq!(tokens.next().as_deref(), Some(";"));
                }
                label => {
                    let label = label.strip_prefix('&').expect("a node or a reference to one");
                    let path = tree.labels.get(label).expect("a known label").clone();
                    tree.body(&path, &mut tokens);
                }
            }
        }
    }
    tree.compiled()
}

type Tokens = std::iter::Peekable<std::vec::IntoIter<String>>;
type Path = Vec<String>;

#[derive(Default)]
struct Source {
    root: Node,
    labels: BTreeMap<String, Path>,
}

#[derive(Default)]
struct Node {
    properties: Vec<(String, Vec<Value>)>,
    children: Vec<(String, Node)>,
}

enum Value {
    Text(String),
    Cells(Vec<String>),
}

impl Source {
    /// Reads a node's body into the node at `path`.
    fn body(&mut self, path: &[String], tokens: &mut Tokens) {
        assert_eq!(tokens.next().as_deref(), Some("{"));
        loop {
            let word = tokens.next().expect("a body that ends");
            match word.as_str() {
                "}" => break,
                "/delete-property/" => {
                    let name = tokens.next().expect("a property");
                    self.node(path).properties.retain(|(known, _)| *known != name);
                    assert_eq!(tokens.next().as_deref(), Some(";"));
                }
                _ => self.statement(path, word, tokens),
            }
        }
        assert_eq!(tokens.next().as_deref(), Some(";"));
    }

    fn statement(&mut self, path: &[String], word: String, tokens: &mut Tokens) {
        let (label, name) = match word.strip_suffix(':') {
            Some(label) => (Some(label.to_owned()), tokens.next().expect("a node")),
            None => (None, word),
        };
        if tokens.peek().map(String::as_str) == Some("{") {
            let path = [path, &[name]].concat();
            if let Some(label) = label {
                self.labels.insert(label, path.clone());
            }
            self.node(&path);
            return self.body(&path, tokens);
        }
        let value = value(tokens);
        let node = self.node(path);
        node.properties.retain(|(known, _)| *known != name);
        node.properties.push((name, value));
    }

    /// Returns the node at this path, after creating it if necessary.
    fn node(&mut self, path: &[String]) -> &mut Node {
        path.iter().fold(&mut self.root, |node, name| {
            let known = node.children.iter().position(|(known, _)| known == name);
            let place = known.unwrap_or_else(|| {
                node.children.push((name.clone(), Node::default()));
                node.children.len() - 1
            });
            &mut node.children[place].1
        })
    }

    fn compiled(mut self) -> Vec<u8> {
        let labels = std::mem::take(&mut self.labels);
        let phandles: BTreeMap<String, u32> = labels.keys().cloned().zip(1..).collect();
        for (label, path) in labels {
            let number = vec![Value::Cells(vec![format!("&{label}")])];
            self.node(&path).properties.push(("phandle".into(), number));
        }
        let mut tree = DeviceTree::new();
        fill(&mut tree.root, &self.root, &phandles);
        tree.to_dtb()
    }
}

fn fill(into: &mut DeviceTreeNode, node: &Node, phandles: &BTreeMap<String, u32>) {
    for (name, values) in &node.properties {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.bytes(phandles)).collect();
        into.add_property(DeviceTreeProperty::new_unchecked(name.as_str(), bytes.as_slice()));
    }
    for (name, child) in &node.children {
        let mut made = DeviceTreeNode::new_unchecked(name.as_str());
        fill(&mut made, child, phandles);
        into.add_child(made);
    }
}

impl Value {
    fn bytes(&self, phandles: &BTreeMap<String, u32>) -> Vec<u8> {
        match self {
            Self::Text(text) => [text.as_bytes(), &[0]].concat(),
            Self::Cells(cells) => {
                cells.iter().flat_map(|c| cell(c, phandles).to_be_bytes()).collect()
            }
        }
    }
}

fn cell(spelled: &str, phandles: &BTreeMap<String, u32>) -> u32 {
    if let Some(label) = spelled.strip_prefix('&') {
        return phandles[label];
    }
    let digits = spelled.strip_prefix("0x");
    digits.map_or_else(|| spelled.parse(), |hex| u32::from_str_radix(hex, 16)).expect("a cell")
}

/// Reads the values up to the semicolon.
fn value(tokens: &mut Tokens) -> Vec<Value> {
    let mut values = Vec::new();
    loop {
        match tokens.next().expect("a property that ends").as_str() {
            ";" => return values,
            "=" | "," => {}
            "<" => {
                let cells = tokens.by_ref().take_while(|token| token != ">");
                values.push(Value::Cells(cells.collect()));
            }
            text => {
                let text = text.strip_prefix('"').expect("cells or a string");
                values.push(Value::Text(text.to_owned()));
            }
        }
    }
}

/// Splits a source into tokens; strings keep their opening quote.
fn tokens(source: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    for line in source.lines().map(|line| line.split("//").next().unwrap_or_default()) {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = match first {
                '"' => rest[1..].find('"').expect("a string that ends") + 1,
                '{' | '}' | ';' | '=' | '<' | '>' | ',' => 1,
                _ => rest.find([' ', '\t', '{', '}', ';', '=', '<', '>']).unwrap_or(rest.len()),
            };
            let length =
                if rest[..length].ends_with(',') && length > 1 { length - 1 } else { length };
            tokens.push(rest[..length].to_owned());
            rest = rest[length..].strip_prefix('"').unwrap_or(&rest[length..]).trim_start();
        }
    }
    tokens
}
