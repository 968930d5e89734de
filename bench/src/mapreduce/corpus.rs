//! What the jobs read: books over and over, in another order each time; records as sort benchmarks have them.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::{BenchError, Result};

/// Files of the text.
const FILES: u64 = 32;

/// The inputs.
pub(super) struct Corpus {
    pub(super) text: PathBuf,
    pub(super) text_bytes: u64,
    pub(super) records: PathBuf,
    pub(super) records_bytes: u64,
    /// A small job: each book once.
    pub(super) books: PathBuf,
    pub(super) books_bytes: u64,
}

impl Corpus {
    /// Makes text and records of about `bytes` each.
    pub(super) fn make(folder: &Path, books: Option<&Path>, bytes: u64) -> Result<Self> {
        let mut random = Random(1);
        let mut texts = match books.map(Path::to_path_buf).or_else(found) {
            Some(books) => read(&books)?,
            None => (0..8).map(|_| made_up(&mut random, 420_000)).collect(),
        };
        let (text, records, small) = (folder.join("text"), folder.join("records"), folder.join("books"));
        for folder in [&text, &records, &small] {
            fs::create_dir(folder).map_err(io(folder))?;
        }
        let mut books_bytes = 0;
        for (number, book) in texts.iter().enumerate() {
            let path = small.join(format!("{number}.txt"));
            fs::write(&path, book).map_err(io(&path))?;
            books_bytes += book.len() as u64;
        }
        let mut text_bytes = 0;
        for number in 0..FILES {
            let path = text.join(format!("{number:02}.txt"));
            let mut file = BufWriter::new(File::create(&path).map_err(io(&path))?);
            let mut written = 0;
            'file: loop {
                for place in (1..texts.len()).rev() {
                    texts.swap(place, random.below(place as u64 + 1) as usize);
                }
                for book in &texts {
                    file.write_all(book).map_err(io(&path))?;
                    written += book.len() as u64;
                    if written >= bytes / FILES {
                        break 'file;
                    }
                }
            }
            ended(file).map_err(io(&path))?;
            text_bytes += written;
        }
        let path = records.join("records.txt");
        let records_bytes = write_records(&path, bytes / 100, &mut random).map_err(io(&path))?;
        Ok(Self { text, text_bytes, records, records_bytes, books: small, books_bytes })
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> BenchError + use<> {
    BenchError::io(format!("making {}", path.display()))
}

/// The books that are kept beside the working copy.
fn found() -> Option<PathBuf> {
    let own = std::env::current_dir().ok()?;
    own.ancestors().map(|folder| folder.join("shared/data/books")).find(|books| books.is_dir())
}

fn read(books: &Path) -> Result<Vec<Vec<u8>>> {
    let doing = || BenchError::io(format!("reading {}", books.display()));
    let mut paths = Vec::new();
    for entry in fs::read_dir(books).map_err(doing())? {
        paths.push(entry.map_err(doing())?.path());
    }
    paths.sort();
    let mut texts = Vec::new();
    for path in paths {
        let mut text = fs::read(&path).map_err(doing())?;
        if !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        texts.push(text);
    }
    if texts.is_empty() {
        return Err(BenchError::Usage(format!("--books {}: no books there", books.display())));
    }
    Ok(texts)
}

/// Text whose words are as unequally frequent as those of a language.
fn made_up(random: &mut Random, bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 100);
    let mut column = 0;
    while text.len() < bytes {
        // The n-th word is about 1/n as frequent as the first.
        let rank = 20_000_f64.powf(random.below(1 << 30) as f64 / f64::from(1 << 30)) as u64;
        let mut state = Random(rank);
        let length = 2 + rank.ilog2() as usize / 2 + state.below(4) as usize;
        text.extend((0..length).map(|_| b'a' + state.below(26) as u8));
        column += length;
        text.push(if column > 60 { b'\n' } else { b' ' });
        column = if column > 60 { 0 } else { column };
    }
    text.extend_from_slice(b"\nit was Frankenstein who said so\n");
    text
}

/// Nothing of it is left to be written while somebody else is measured on the same disk.
fn ended(mut file: BufWriter<File>) -> std::io::Result<()> {
    file.flush()?;
    file.get_ref().sync_all()
}

/// Records of 100 bytes: ten random letters, a number, a filler.
fn write_records(path: &Path, count: u64, random: &mut Random) -> std::io::Result<u64> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut record = *b"0123456789  00000000000000000000000000000000  AAAABBBBCCCCDDDDEEEEFFFFGGGGHHHHIIIIJJJJKKKKLLLLMMMM\r\n";
    for number in 0..count {
        let (one, other) = (random.next(), random.next());
        for (place, byte) in record[..10].iter_mut().enumerate() {
            let bits = if place < 5 { one >> (place * 12) } else { other >> (place * 6) };
            *byte = b' ' + (bits % 95) as u8;
        }
        let digits = format!("{number:032X}");
        record[12..44].copy_from_slice(digits.as_bytes());
        file.write_all(&record)?;
    }
    ended(file)?;
    Ok(count * record.len() as u64)
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
