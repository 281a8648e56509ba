#!/bin/sh
# version.sh: the version of this source. At a tag vX.Y.Z it is X.Y.Z; N commits later
# X.Y.Z+N.gHASH; before the first tag 0.0.0+N.gHASH, N counting all commits. Semantic
# versions, and dpkg and rpm sort them by age. Changed files add ".dirty".
cd "$(dirname "$0")" 2> /dev/null || exit
last=$(git describe --tags --match 'v[0-9]*' --abbrev=0 2> /dev/null)
n=$(git rev-list --count "${last:+$last..}HEAD" 2> /dev/null) || { echo 0.0.0+unknown; exit; }
version=${last#v}
version=${version:-0.0.0}
[ "$n" = 0 ] || version=$version+$n.g$(git rev-parse --short=8 HEAD)
if ! git diff --quiet HEAD; then
	case $version in *+*) version=$version.dirty ;; *) version=$version+dirty ;; esac
fi
echo "$version"
