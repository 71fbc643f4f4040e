// Reads a log directory with golang.org/x/mod/sumdb: the note, the tiles, the entries, and every proof.
//
// Usage: log DIR VKEY [SIZE...]. Prints one line of JSON. Exits with 1 and says why if anything does not fit.
// The directory has C2SP tlog-tiles paths; sumdb's own ones name the height too, so tiles are read by their
// coordinates here, and everything else is sumdb's.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

// tiles is a tlog.TileReader over files.
type tiles struct {
	dir  string
	size int64
	kept map[tlog.Tile][]byte
	read int
}

func (t *tiles) Height() int { return height }

func (t *tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func (t *tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	found := make([][]byte, len(wanted))
	for i, tile := range wanted {
		content, err := t.tile(tile)
		if err != nil {
			return nil, err
		}
		found[i] = content
	}
	return found, nil
}

func (t *tiles) tile(tile tlog.Tile) ([]byte, error) {
	if content, ok := t.kept[tile]; ok {
		return content, nil
	}
	content, err := t.file(strconv.Itoa(tile.L), tile)
	if err != nil {
		return nil, err
	}
	if len(content) != tile.W*tlog.HashSize {
		return nil, fmt.Errorf("tile %v has %d bytes", tile, len(content))
	}
	t.kept[tile] = content
	t.read++
	return content, nil
}

// file reads `tile/<level>/<N>`, with `.p/<W>` if the tile is not full.
func (t *tiles) file(level string, tile tlog.Tile) ([]byte, error) {
	path := fmt.Sprintf("%03d", tile.N%1000)
	for n := tile.N / 1000; n > 0; n /= 1000 {
		path = fmt.Sprintf("x%03d/%s", n%1000, path)
	}
	if tile.W != 1<<height {
		path = fmt.Sprintf("%s.p/%d", path, tile.W)
	}
	return os.ReadFile(filepath.Join(t.dir, "tile", level, path))
}

// entries reads all entry bundles.
func (t *tiles) entries() ([][]byte, error) {
	var all [][]byte
	for first := int64(0); first < t.size; first += 1 << height {
		width := t.size - first
		if width > 1<<height {
			width = 1 << height
		}
		bundle, err := t.file("entries", tlog.Tile{N: first >> height, W: int(width)})
		if err != nil {
			return nil, err
		}
		for ; width > 0; width-- {
			if len(bundle) < 2 || len(bundle) < 2+int(binary.BigEndian.Uint16(bundle)) {
				return nil, fmt.Errorf("the bundle of entry %d ends early", first)
			}
			end := 2 + int(binary.BigEndian.Uint16(bundle))
			all = append(all, bundle[2:end])
			bundle = bundle[end:]
		}
		if len(bundle) != 0 {
			return nil, fmt.Errorf("%d bytes after the bundle of entry %d", len(bundle), first)
		}
	}
	return all, nil
}

// checkpoint is the text of a C2SP checkpoint; sumdb's own parser takes only its own first line.
func checkpoint(text, origin string) (tree tlog.Tree, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[0] != origin || lines[3] != "" {
		return tree, fmt.Errorf("not a checkpoint of %s: %q", origin, text)
	}
	return tlog.ParseTree([]byte("go.sum database tree\n" + lines[1] + "\n" + lines[2] + "\n"))
}

func check(dir, vkey string, sizes []string) (map[string]interface{}, error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	signed, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		return nil, err
	}
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return nil, err
	}
	tree, err := checkpoint(opened.Text, verifier.Name())
	if err != nil {
		return nil, err
	}
	reader := &tiles{dir: dir, size: tree.N, kept: map[tlog.Tile][]byte{}}
	// Holds every tile against the signed root, or fails.
	hashes := tlog.TileHashReader(tree, reader)
	root, err := tlog.TreeHash(tree.N, hashes)
	if err != nil {
		return nil, err
	}
	if root != tree.Hash {
		return nil, fmt.Errorf("the tiles give root %v, signed is %v", root, tree.Hash)
	}
	entries, err := reader.entries()
	if err != nil {
		return nil, err
	}
	for i, entry := range entries {
		proof, err := tlog.ProveRecord(tree.N, int64(i), hashes)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %v", i, err)
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, int64(i), tlog.RecordHash(entry)); err != nil {
			return nil, fmt.Errorf("entry %d: %v", i, err)
		}
	}
	consistent := map[string]string{}
	for _, text := range sizes {
		size, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, err
		}
		older, err := tlog.TreeHash(size, hashes)
		if err != nil {
			return nil, fmt.Errorf("size %d: %v", size, err)
		}
		proof, err := tlog.ProveTree(tree.N, size, hashes)
		if err != nil {
			return nil, fmt.Errorf("size %d: %v", size, err)
		}
		if err := tlog.CheckTree(proof, tree.N, tree.Hash, size, older); err != nil {
			return nil, fmt.Errorf("size %d: %v", size, err)
		}
		consistent[text] = base64.StdEncoding.EncodeToString(older[:])
	}
	return map[string]interface{}{
		"size":       tree.N,
		"signatures": len(opened.Sigs) + len(opened.UnverifiedSigs),
		"entries":    len(entries),
		"tiles":      reader.read,
		"roots":      consistent,
	}, nil
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: log DIR VKEY [SIZE...]")
		os.Exit(2)
	}
	found, err := check(os.Args[1], os.Args[2], os.Args[3:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	line, err := json.Marshal(found)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(string(line))
}
