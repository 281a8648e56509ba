#!/bin/sh
# build.sh VERSION BIN_DIR OUT FORMAT...: makes the packages of the programs in BIN_DIR, with
# FORMAT deb or rpm. The same bytes come out of the same programs: times are that of the last
# commit (SOURCE_DATE_EPOCH), and owners are root. With a FORMAT a list of what is in each program
# (CycloneDX) lies beside. STAGE names a directory that keeps the files of the packages.
set -eu
export VERSION=${1?usage: build.sh VERSION BIN_DIR OUT FORMAT...}
bin=$(cd "$2" && pwd)
mkdir -p "$3"
out=$(cd "$3" && pwd)
shift 3
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.."
umask 022
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
MAINTAINER=${MAINTAINER:-$(git log -1 --format='%an <%ae>')}
ARCH=$(go env GOARCH)
# Central is linked with the C library: the newest of its symbol versions is the oldest that will do.
GLIBC=$(objdump -T "$bin/rackpower-central" | sed -n 's/.*(GLIBC_\([0-9.]*\)).*/\1/p' | sort -V | tail -1)
export SOURCE_DATE_EPOCH MAINTAINER ARCH GLIBC
stage=${STAGE:-$(mktemp -d)}
[ -n "${STAGE:-}" ] || trap 'rm -rf "$stage"' EXIT

for package in rackpower rackpower-central; do
	root=$stage/$package
	daemon=agent
	[ $package = rackpower ] || daemon=central
	systemd/install.sh "$root" /usr "$bin" $package > /dev/null
	for script in postinst prerm postrm; do
		sed "s/@daemon@/$daemon/g" "$here/scripts/$script" > "$root/$script"
	done
	doc=$root/usr/share/doc/$package
	mkdir -p "$doc"
	cp "$here/copyright" "$doc/"
	{
		printf '%s (%s) unstable; urgency=medium\n\n' $package "$VERSION"
		printf '  * CHANGELOG.md.gz has what changed for those who run rackpower.\n\n'
		printf ' -- %s  %s\n' "$MAINTAINER" "$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")"
	} | gzip -9n > "$doc/changelog.gz"
	gzip -9nc CHANGELOG.md > "$doc/CHANGELOG.md.gz"
	gzip -9nc systemd/README.md > "$doc/README.md.gz"
	section=1
	[ $package = rackpower ] || section=8
	"$bin/$package" man "$root/usr/share/man/man$section"
	gzip -9n "$root/usr/share/man/man$section"/*
	completion() { # SHELL FILE
		mkdir -p "$(dirname "$root/usr/share/$2")"
		"$bin/$package" completion "$1" > "$root/usr/share/$2"
	}
	completion bash "bash-completion/completions/$package"
	completion zsh "zsh/vendor-completions/_$package"
	completion fish "fish/vendor_completions.d/$package.fish"
	mkdir -p "$root/usr/share/lintian/overrides"
	cp "$here/lintian/$package" "$root/usr/share/lintian/overrides/"
	chmod -R u=rwX,go=rX "$root"
	find "$root" -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +
	for format; do
		nfpm=$(go tool -n -modfile=tools/packages.mod nfpm)
		(cd "$root" && "$nfpm" package --config "$here/$package.yaml" --packager "$format" --target "$out/")
	done
	[ $# = 0 ] || go tool -modfile=tools/packages.mod cyclonedx-gomod bin -json -licenses -std -noserial -notimestamp \
		-version "$VERSION" -output "$out/${package}_${VERSION}_$ARCH.cdx.json" "$bin/$package" 2> /dev/null
done
