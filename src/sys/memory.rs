//! The resident memory of this process: what its start needed and its further life does not is given
//! back. Meant for a process that lives long, does little, and has to be there when memory is short.

use std::fs;
use std::ops::Range;

/// Gives free heap back, and lets go of the pages of program and libraries that were only read: the
/// start has touched most of a program of which little is needed later. What is needed again comes
/// back from the page cache.
pub fn shed() {
    // SAFETY: malloc_trim takes no pointer and may be called at any time.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
    // Without /proc it stays as large as it is.
    let maps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    for range in clean_files(&maps) {
        let at = range.start as *mut libc::c_void;
        // SAFETY: the range is a mapping of a file that cannot be written to and of which no page is
        // anonymous, as the kernel has just told: all its pages are the file's, and a page that is let
        // go is read from the file again. Nothing unmaps it meanwhile: code is never unloaded here.
        unsafe {
            libc::madvise(at, range.len(), libc::MADV_DONTNEED);
        }
    }
}

/// The mappings (proc_pid_smaps(5)) that hold nothing but the content of a file: not writable, and
/// without an anonymous page (relocated data is read-only in the end, but has some).
fn clean_files(maps: &str) -> Vec<Range<usize>> {
    let mut clean = Vec::new();
    let mut candidate = None;
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let first = fields.next().unwrap_or_default();
        if let Some(range) = range(first) {
            let read_only = fields
                .next()
                .is_some_and(|p| p.starts_with("r-") && p.ends_with('p'));
            let of_a_file = fields.nth(3).is_some_and(|path| path.starts_with('/'));
            candidate = (read_only && of_a_file).then_some(range);
        } else if first == "Anonymous:" && fields.next() == Some("0") {
            clean.extend(candidate.take());
        }
    }
    clean
}

fn range(text: &str) -> Option<Range<usize>> {
    let (start, end) = text.split_once('-')?;
    let number = |hex| usize::from_str_radix(hex, 16).ok();
    Some(number(start)?..number(end)?).filter(|range| !range.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident_kib(field: &str) -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .parse()
            .unwrap()
    }

    #[test]
    fn what_was_only_read_goes_and_comes_back() {
        // Reading all of the program makes it resident.
        let maps = fs::read_to_string("/proc/self/smaps").unwrap();
        assert!(clean_files(&maps).len() > 2, "{maps}");
        let text = format!("{:?}", std::backtrace::Backtrace::force_capture());
        let before = resident_kib("RssFile:");
        shed();
        let after = resident_kib("RssFile:");
        println!("RssFile {before} KiB before, {after} KiB after");
        assert!(after < before, "{after} {before}");
        let again = format!("{:?}", std::backtrace::Backtrace::force_capture());
        assert!(!text.is_empty() && !again.is_empty());
    }

    #[test]
    fn relocated_data_and_what_can_be_written_stays() {
        let maps = "\
1000-2000 r--p 00000000 fe:00 1  /bin/x
Anonymous:             0 kB
2000-3000 r-xp 00001000 fe:00 1  /bin/x with space
Rss:                   8 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
3000-4000 r--p 00002000 fe:00 1  /bin/x
Anonymous:             4 kB
4000-5000 rw-p 00003000 fe:00 1  /bin/x
Anonymous:             0 kB
5000-6000 r--s 00003000 fe:00 1  /bin/shared
Anonymous:             0 kB
6000-7000 r-xp 00000000 00:00 0  [vdso]
Anonymous:             0 kB
7000-8000 r--p 00000000 00:00 0
Anonymous:             0 kB
";
        assert_eq!(clean_files(maps), [0x1000..0x2000, 0x2000..0x3000]);
        assert!(clean_files("nonsense\n-\n5-4 r--p").is_empty());
    }
}
