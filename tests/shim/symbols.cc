#include "tests/shim/symbols.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cxxabi.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

namespace shim {

namespace {

struct image { /* the program's file, mapped for ever; its symbols by address */
    bool read = false;
    uintptr_t base = 0;
    const Elf64_Sym *symbols = nullptr;
    size_t n = 0;
    const char *names = nullptr;
    std::vector<const Elf64_Sym *> shared;
} program;

int first_object(dl_phdr_info *info, size_t, void *base) {
    *static_cast<uintptr_t *>(base) = info->dlpi_addr;
    return 1;
}

const char *map_program() {
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) return nullptr;
    void *map = mmap(nullptr, static_cast<size_t>(st.st_size), PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    return map == MAP_FAILED ? nullptr : static_cast<const char *>(map);
}

void read_program() {
    if (program.read) return;
    program.read = true;
    const char *file = map_program();
    if (!file || sizeof(void *) != 8) return;
    const Elf64_Ehdr *header = reinterpret_cast<const Elf64_Ehdr *>(file);
    const Elf64_Shdr *sections = reinterpret_cast<const Elf64_Shdr *>(file + header->e_shoff);
    for (int i = 0; i < header->e_shnum; i++) {
        if (sections[i].sh_type != SHT_SYMTAB) continue;
        program.symbols = reinterpret_cast<const Elf64_Sym *>(file + sections[i].sh_offset);
        program.n = sections[i].sh_size / sizeof *program.symbols;
        program.names = file + sections[sections[i].sh_link].sh_offset;
    }
    dl_iterate_phdr(first_object, &program.base);
    for (size_t i = 0; i < program.n; i++) {
        const Elf64_Sym *s = &program.symbols[i];
        if (ELF64_ST_TYPE(s->st_info) != STT_OBJECT || s->st_shndx >= header->e_shnum) continue;
        if (sections[s->st_shndx].sh_type != SHT_NOBITS || strncmp(program.names + s->st_name, "_ZZ", 3) != 0)
            continue;
        program.shared.push_back(s);
    }
}

} // namespace

std::string kernel_name_of(const void *function) {
    read_program();
    uintptr_t address = reinterpret_cast<uintptr_t>(function) - program.base;
    for (size_t i = 0; i < program.n; i++) {
        const Elf64_Sym &s = program.symbols[i];
        if (ELF64_ST_TYPE(s.st_info) != STT_FUNC || s.st_value != address) continue;
        int status = 0;
        char *plain = abi::__cxa_demangle(program.names + s.st_name, nullptr, nullptr, &status);
        std::string name = plain ? plain : program.names + s.st_name;
        free(plain);
        static const char anonymous[] = "(anonymous namespace)::";
        for (size_t at; (at = name.find(anonymous)) != std::string::npos;)
            name.erase(at, sizeof anonymous - 1);
        return name.substr(0, name.find('('));
    }
    char text[32];
    snprintf(text, sizeof text, "at %p", function);
    return text;
}

void spoil_static_shared() {
    read_program();
    for (const Elf64_Sym *s : program.shared)
        memset(reinterpret_cast<void *>(program.base + s->st_value), 0xff, s->st_size);
}

} // namespace shim
