# cmake -DSOURCE=DIR -DOUTPUT=FILE -P git_revision.cmake: writes the commit of DIR into the header FILE, when it differs from what the
# file says. Run by every build: a configured constant would name the commit of the last configure.
#   12 digits           the commit that is checked out in DIR
#   12 digits and -dirty  sources are built that it does not hold: tracked files are changed, or there are untracked ones
#   nothing             DIR is no checkout of its own (it may lie in somebody else's) and no archive of one
# An archive made by `git archive` bears its commit in tools/git_archive.txt.
set(git ${CMAKE_COMMAND} -E env --unset=GIT_DIR --unset=GIT_WORK_TREE --unset=GIT_INDEX_FILE git -c safe.directory=* -C ${SOURCE})
function(ask out)
  execute_process(COMMAND ${git} ${ARGN} OUTPUT_VARIABLE text RESULT_VARIABLE code OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(NOT code EQUAL 0)
    set(text "")
  endif()
  set(${out} "${text}" PARENT_SCOPE)
endfunction()

set(revision "")
ask(top rev-parse --show-toplevel)
get_filename_component(source ${SOURCE} REALPATH)
if(top)
  get_filename_component(top ${top} REALPATH)
endif()
if(top STREQUAL source)
  ask(revision rev-parse --short=12 HEAD)
  ask(changed status --porcelain --untracked-files=no)
  ask(untracked ls-files --others --exclude-standard -- *.c *.h *.cu *.cuh *.inc *.def *.cmake CMakeLists.txt)
  if(revision AND (changed OR untracked))
    string(APPEND revision "-dirty")
  endif()
elseif(EXISTS ${SOURCE}/tools/git_archive.txt)
  file(STRINGS ${SOURCE}/tools/git_archive.txt revision LIMIT_COUNT 1 REGEX "^[0-9a-f]+$")
  string(SUBSTRING "${revision}" 0 12 revision)
endif()

set(text "#define QB_GIT \"${revision}\"\n")
set(old "")
if(EXISTS ${OUTPUT})
  file(READ ${OUTPUT} old)
endif()
if(NOT old STREQUAL text)
  file(WRITE ${OUTPUT} "${text}")
endif()
