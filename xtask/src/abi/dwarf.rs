//! Debugging information as `readelf` prints it, read into a tree of types.
//!
//! Owns the parser and the rendering of types in one notation, which the tests of `ibex-sys` render Rust's types in too:
//! `u32`, `*ibv_qp`, `[u8; 6]`, `fn(*ibv_qp, i32) -> i32`, names for structures, unions and enumerations. `const` is
//! dropped, sizes of the machine's word are written `u64` and `i64`.
//!
//! DWARF 4, section 5 (type entries).

use std::collections::HashMap;

use anyhow::{Context, Result, bail};

/// One debugging information entry.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) tag: String,
    pub(super) name: Option<String>,
    pub(super) size: Option<u64>,
    pub(super) offset: u64,
    upper_bound: Option<u64>,
    encoding: u64,
    type_of: Option<u64>,
    pub(super) declaration: bool,
    pub(super) children: Vec<u64>,
}

/// All entries, by their place in the section.
pub(super) struct Tree {
    pub(super) entries: HashMap<u64, Entry>,
    /// Entries at the top level, in order.
    pub(super) top: Vec<u64>,
    /// C macros that rename a type.
    aliases: HashMap<String, String>,
}

impl Tree {
    /// Reads the output of `readelf --debug-dump=info --wide`.
    pub(super) fn parse(text: &str, aliases: HashMap<String, String>) -> Result<Self> {
        let mut tree = Self { entries: HashMap::new(), top: Vec::new(), aliases };
        // The path from the root to the entry being read.
        let mut path: Vec<u64> = Vec::new();
        for line in text.lines() {
            let line = line.trim_start();
            if let Some((depth, at, tag)) = head(line) {
                path.truncate(depth);
                match path.last() {
                    Some(parent) if depth > 0 => {
                        tree.entries.entry(*parent).or_default().children.push(at);
                    }
                    _ => tree.top.push(at),
                }
                path.push(at);
                tree.entries.insert(at, Entry { tag: tag.to_owned(), ..Entry::default() });
            } else if let Some((name, value)) = attribute(line)
                && let Some(entry) = path.last().and_then(|at| tree.entries.get_mut(at))
            {
                entry.set(name, value).with_context(|| format!("cannot read `{line}`"))?;
            }
        }
        if tree.top.is_empty() {
            bail!("the compiler's output has no debugging information");
        }
        Ok(tree)
    }

    /// The entry at `at`.
    pub(super) fn entry(&self, at: u64) -> Result<&Entry> {
        self.entries
            .get(&at)
            .with_context(|| format!("debugging information refers to <{at:x}>, which is not there"))
    }

    /// A name after renaming by macros.
    pub(super) fn rename<'a>(&'a self, name: &'a str) -> &'a str {
        self.aliases.get(name).map_or(name, String::as_str)
    }

    /// The entry behind typedefs and qualifiers, with the last typedef's name.
    pub(super) fn resolve(&self, entry: &Entry) -> Result<Option<(u64, Option<String>)>> {
        let Some(mut at) = entry.type_of else { return Ok(None) };
        let mut alias = None;
        loop {
            let entry = self.entry(at)?;
            match entry.tag.as_str() {
                "DW_TAG_typedef" => alias.clone_from(&entry.name),
                "DW_TAG_const_type" | "DW_TAG_volatile_type" | "DW_TAG_restrict_type" => {}
                _ => return Ok(Some((at, alias))),
            }
            match entry.type_of {
                Some(next) => at = next,
                // `const void` refers to nothing.
                None => return Ok(None),
            }
        }
    }

    /// Size in bytes of the type of `entry`.
    pub(super) fn size(&self, entry: &Entry) -> Result<u64> {
        let Some((at, _)) = self.resolve(entry)? else { return Ok(0) };
        let entry = self.entry(at)?;
        if entry.tag == "DW_TAG_array_type" {
            return Ok(self.lengths(entry)?.iter().product::<u64>() * self.size(entry)?);
        }
        entry.size.with_context(|| format!("a {} without size", entry.tag))
    }

    /// Lengths of an array, outermost first.
    fn lengths(&self, array: &Entry) -> Result<Vec<u64>> {
        array
            .children
            .iter()
            .map(|at| Ok(self.entry(*at)?.upper_bound.map_or(0, |bound| bound + 1)))
            .collect()
    }

    /// The type of `entry` in this module's notation.
    pub(super) fn render(&self, entry: &Entry) -> Result<String> {
        let Some((at, alias)) = self.resolve(entry)? else { return Ok("void".to_owned()) };
        let entry = self.entry(at)?;
        Ok(match entry.tag.as_str() {
            "DW_TAG_base_type" => scalar(entry.encoding, entry.size.unwrap_or(0))?.to_owned(),
            "DW_TAG_pointer_type" => {
                let target = self.render(entry)?;
                // A pointer to a function is written as the function.
                if target.starts_with("fn(") { target } else { format!("*{target}") }
            }
            "DW_TAG_array_type" => {
                let element = self.render(entry)?;
                self.lengths(entry)?
                    .iter()
                    .rev()
                    .fold(element, |inner, length| format!("[{inner}; {length}]"))
            }
            "DW_TAG_subroutine_type" => {
                let mut parameters = Vec::new();
                for child in &entry.children {
                    let child = self.entry(*child)?;
                    if child.tag == "DW_TAG_formal_parameter" {
                        parameters.push(self.render(child)?);
                    }
                }
                let result = match self.render(entry)?.as_str() {
                    "void" => String::new(),
                    result => format!(" -> {result}"),
                };
                format!("fn({}){result}", parameters.join(", "))
            }
            "DW_TAG_structure_type" | "DW_TAG_union_type" | "DW_TAG_enumeration_type" => {
                match entry.name.as_deref().or(alias.as_deref()) {
                    Some(name) => self.rename(name).to_owned(),
                    None => "unnamed".to_owned(),
                }
            }
            tag => bail!("a type of kind {tag} is not expected in these headers"),
        })
    }

    /// The integer type behind an enumeration.
    pub(super) fn underlying(&self, enumeration: &Entry) -> Result<String> {
        self.render(enumeration)
    }
}

impl Entry {
    /// Takes over one attribute.
    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "DW_AT_name" => {
                // "(strp) (offset: 0x3e6): sg_list", "(indirect string, offset: 0x3e6): sg_list" or "(string) wr".
                let text = value.rsplit_once("): ").map_or(value, |(_, text)| text);
                let text = text.strip_prefix("(string) ").unwrap_or(text);
                self.name = Some(text.trim().to_owned());
            }
            "DW_AT_byte_size" => self.size = Some(number(value)?),
            "DW_AT_data_member_location" => self.offset = number(value)?,
            "DW_AT_upper_bound" => self.upper_bound = number(value).ok(),
            "DW_AT_encoding" => self.encoding = number(value)?,
            "DW_AT_declaration" => self.declaration = true,
            "DW_AT_type" => {
                let hex = value.split_once("<0x").and_then(|(_, rest)| rest.split('>').next());
                self.type_of = Some(u64::from_str_radix(hex.context("a type without reference")?, 16)?);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Depth, place and tag, from `<2><7209>: Abbrev Number: 25 (DW_TAG_member)`.
fn head(line: &str) -> Option<(usize, u64, &str)> {
    let (depth, rest) = line.strip_prefix('<')?.split_once("><")?;
    let (at, rest) = rest.split_once(">: Abbrev Number: ")?;
    // Number 0 ends a list of children and has no tag.
    let tag = rest.split_once('(')?.1.strip_suffix(')')?;
    Some((depth.parse().ok()?, u64::from_str_radix(at, 16).ok()?, tag))
}

/// Name and value, from `<720a>   DW_AT_name        : (strp) (offset: 0x43e9): wr_id`.
fn attribute(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.strip_prefix('<')?.split_once(">   ")?;
    let (name, value) = rest.split_once(':')?;
    Some((name.trim(), value.trim()))
}

/// The number in `(data1) 36` or `(data1) 7 (unsigned)`.
fn number(value: &str) -> Result<u64> {
    let value = match value.strip_prefix('(') {
        Some(rest) => rest.split_once(')').context("an unclosed form")?.1,
        None => value,
    };
    let word = value.split_whitespace().next().context("no number")?;
    match word.strip_prefix("0x") {
        Some(hex) => Ok(u64::from_str_radix(hex, 16)?),
        None => Ok(word.parse()?),
    }
}

/// A base type by its DWARF encoding (section 7.8) and size.
fn scalar(encoding: u64, size: u64) -> Result<&'static str> {
    Ok(match (encoding, size) {
        // unsigned, unsigned char, boolean
        (7 | 8 | 2, 1) => "u8",
        (7, 2) => "u16",
        (7, 4) => "u32",
        (7, 8) => "u64",
        // signed, signed char
        (5 | 6, 1) => "i8",
        (5, 2) => "i16",
        (5, 4) => "i32",
        (5, 8) => "i64",
        _ => bail!("a base type of encoding {encoding} and {size} bytes is not expected in these headers"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct pair { unsigned int first; const char *second[2]; }`, as two versions of binutils print it.
    const PAIR: &str = "
 <0><b>: Abbrev Number: 1 (DW_TAG_compile_unit)
    <c>   DW_AT_producer    : (indirect string, offset: 0x0): GNU C17 12.2.0
 <1><20>: Abbrev Number: 2 (DW_TAG_base_type)
    <21>   DW_AT_byte_size   : (data1) 4
    <22>   DW_AT_encoding    : (data1) 7\t(unsigned)
    <23>   DW_AT_name        : (strp) (offset: 0x10): unsigned int
 <1><30>: Abbrev Number: 2 (DW_TAG_base_type)
    <31>   DW_AT_byte_size   : 1
    <32>   DW_AT_encoding    : 6\t(signed char)
    <33>   DW_AT_name        : (indirect string, offset: 0x20): char
 <1><40>: Abbrev Number: 3 (DW_TAG_structure_type)
    <41>   DW_AT_name        : (string) pair
    <46>   DW_AT_byte_size   : (data1) 24
 <2><50>: Abbrev Number: 4 (DW_TAG_member)
    <51>   DW_AT_name        : (strp) (offset: 0x30): first
    <55>   DW_AT_type        : (ref4) <0x20>, unsigned int
    <59>   DW_AT_data_member_location: (data1) 0
 <2><60>: Abbrev Number: 4 (DW_TAG_member)
    <61>   DW_AT_name        : (strp) (offset: 0x40): second
    <65>   DW_AT_type        : <0x70>
    <69>   DW_AT_data_member_location: 8
 <2><6a>: Abbrev Number: 0
 <1><70>: Abbrev Number: 5 (DW_TAG_array_type)
    <71>   DW_AT_type        : (ref4) <0x80>
 <2><75>: Abbrev Number: 6 (DW_TAG_subrange_type)
    <76>   DW_AT_upper_bound : (data1) 1
 <1><80>: Abbrev Number: 7 (DW_TAG_pointer_type)
    <81>   DW_AT_byte_size   : (data1) 8
    <82>   DW_AT_type        : (ref4) <0x90>
 <1><90>: Abbrev Number: 8 (DW_TAG_const_type)
    <91>   DW_AT_type        : (ref4) <0x30>, char
";

    #[test]
    fn a_structure_is_read_with_its_members() {
        let tree = Tree::parse(PAIR, HashMap::new()).unwrap();
        let pair = tree.entry(0x40).unwrap();
        assert_eq!((pair.name.as_deref(), pair.size), (Some("pair"), Some(24)));
        let members: Vec<_> = pair
            .children
            .iter()
            .map(|at| tree.entry(*at).unwrap())
            .map(|it| (it.name.clone().unwrap(), it.offset, tree.size(it).unwrap(), tree.render(it).unwrap()))
            .collect();
        assert_eq!(
            members,
            [
                ("first".to_owned(), 0, 4, "u32".to_owned()),
                ("second".to_owned(), 8, 16, "[*i8; 2]".to_owned())
            ]
        );
    }

    #[test]
    fn output_without_debugging_information_is_an_error() {
        assert!(Tree::parse("File: probe.o\n", HashMap::new()).is_err());
    }
}
